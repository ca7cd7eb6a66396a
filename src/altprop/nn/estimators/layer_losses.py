"""Layer losses of a sign unit as functions of its margin ``m = t z``, each with its weight ``phi(m) = -dl/dm``.

``t`` is the unit's target in {-1, +1} and ``z`` its input. At a kink the weight is the derivative from the left, as in the
published truncated hinge (``-1 < m <= 1``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

MarginFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MarginLoss:
    """A layer loss and its weight, both elementwise on margins of any shape."""

    loss: MarginFunction
    weight: MarginFunction
    published: bool
    """Whether the paper's code has this backward pass. If not, it has only the loss, and the weight is an addition of altprop."""


def between(margin: Tensor, low: float, high: float) -> Tensor:
    """1 where ``low < margin <= high``, else 0, in the type of ``margin``."""
    return ((margin > low) & (margin <= high)).to(margin.dtype)


def truncated_hinge(margin: Tensor, at: float = 1.0, truncation: float = 2.0) -> Tensor:
    """``min(truncation, max(0, at - m))``."""
    return (at - margin).clamp(0, truncation)


def truncated_hinge_weight(margin: Tensor, at: float = 1.0, truncation: float = 2.0) -> Tensor:
    """1 where ``at - truncation < m <= at``."""
    return between(margin, at - truncation, at)


MARGIN_LOSSES: dict[str, MarginLoss] = {
    "perceptron": MarginLoss(lambda m: (-m).clamp(min=0), lambda m: between(m, -torch.inf, 0), published=True),
    "adaline": MarginLoss(lambda m: (1 - m).square() / 2, lambda m: 1 - m, published=True),
    "hinge": MarginLoss(lambda m: (1 - m).clamp(min=0), lambda m: between(m, -torch.inf, 1), published=False),
    "steep_truncated_hinge": MarginLoss(lambda m: (2 * (1 - m)).clamp(0, 2), lambda m: 2 * between(m, 0, 1), published=False),
    "centred_truncated_hinge": MarginLoss(lambda m: truncated_hinge(m) - 1, truncated_hinge_weight, published=False),
    "truncated_half_squared_hinge": MarginLoss(
        lambda m: (1 - m.clamp(min=-1)).clamp(min=0).square() / 2, lambda m: (1 - m) * between(m, -1, 1), published=False
    ),
    "log_hinge": MarginLoss(
        lambda m: (2 - m.clamp(-1, 1)).log(), lambda m: between(m, -1, 1) / (2 - m.clamp(-1, 1)), published=False
    ),
    "doubled_log_hinge": MarginLoss(
        lambda m: 2 * (2 - m.clamp(-1, 1)).log(), lambda m: 2 * between(m, -1, 1) / (2 - m.clamp(-1, 1)), published=False
    ),
    "truncated_perceptron": MarginLoss(lambda m: (-m).clamp(0, 1), lambda m: between(m, -1, 0), published=False),
    "log_sigmoid": MarginLoss(lambda m: logsigmoid(-2 * m), lambda m: 2 * torch.sigmoid(2 * m), published=False),
    "logistic": MarginLoss(lambda m: softplus(-m), lambda m: torch.sigmoid(-m), published=False),
    "truncated_logistic": MarginLoss(
        lambda m: softplus(-m).clamp(max=2), lambda m: torch.sigmoid(-m) * (softplus(-m) < 2), published=False
    ),
    "squared_hinge": MarginLoss(lambda m: (1 - m.clamp(max=1)).square(), lambda m: 2 * (1 - m.clamp(max=1)), published=False),
    "truncated_squared_hinge": MarginLoss(
        lambda m: (1 - m.clamp(max=1)).square().clamp(max=4), lambda m: 2 * (1 - m) * between(m, -1, 1), published=False
    ),
    "steep_soft_hinge": MarginLoss(
        lambda m: torch.tanh(-2 * m) + 1, lambda m: 2 * (1 - torch.tanh(2 * m).square()), published=False
    ),
}
"""Layer losses for sign units only, by their names in ``algorithm.estimator.loss``."""
