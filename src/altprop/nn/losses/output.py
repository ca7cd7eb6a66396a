"""Losses of class scores ``[batch, classes]`` with integer targets ``[batch]``, averaged over the batch.

The hinge losses sum over the classes and treat them one against the rest: every score is compared with ``Y``, which is +1 for
the target class and -1 for all others.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn


def class_margins(scores: Tensor, targets: Tensor) -> Tensor:
    """``Y * scores``, ``[batch, classes]``."""
    margins = -scores
    return margins.scatter(1, targets.unsqueeze(1), scores.gather(1, targets.unsqueeze(1)))


def hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``max(0, 1 - Y x)``, summed over the classes."""
    return (1 - class_margins(scores, targets)).clamp(min=0).sum(dim=1).mean()


def truncated_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``min(2, max(0, 1 - Y x))``, summed over the classes."""
    return (1 - class_margins(scores, targets)).clamp(0, 2).sum(dim=1).mean()


def squared_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``max(0, 1 - Y x)^2``, summed over the classes."""
    return (1 - class_margins(scores, targets)).clamp(min=0).square().sum(dim=1).mean()


def log_softmax_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """:func:`hinge` of the log-softmax of the scores."""
    return hinge(torch.log_softmax(scores, dim=1), targets)


def clamped_cross_entropy(scores: Tensor, targets: Tensor, minimum: float = 1e-5) -> Tensor:
    """Cross-entropy with a lower bound on the probability of the target class.

    ``-(1 / B) sum_b log clamp(softmax(scores_b)[targets_b], minimum, 1)``. A sample whose target class has a probability below
    ``minimum`` gets no gradient; the loss never exceeds ``-log(minimum)``.
    """
    probabilities = torch.softmax(scores, dim=1).gather(1, targets[:, None])
    return -probabilities.clamp(minimum, 1.0).log().mean()


class ClampedCrossEntropy(nn.Module):
    """See :func:`clamped_cross_entropy`; the published loss of asynchronous decoupled greedy learning."""

    def __init__(self, *, minimum: Annotated[float, Gt(0), Lt(1)] = 1e-5) -> None:
        super().__init__()
        self.minimum = minimum

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss of ``scores`` ``[batch, classes]`` with ``targets`` ``[batch]``, a scalar."""
        return clamped_cross_entropy(scores, targets, self.minimum)
