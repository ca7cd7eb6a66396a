"""The loss that nudges the last states, and what it does to them (Laborieux et al. 2021, loss functions).

The nudge is a gradient with respect to states, taken at every step of a phase, so it is written down instead of differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

LossName = Literal["mse", "cross_entropy"]


def mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Batch mean of ``1/2 sum_k (o_k - y_k)^2``: a sum over classes, one-hot targets.

    ``scores`` ``[batch, classes]``, ``targets`` ``[batch]`` integers.
    """
    return 0.5 * (scores - one_hot(targets, scores)).square().sum(dim=1).mean()


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Batch mean of ``-log softmax(o)_y``; shapes as in :func:`mse`."""
    return functional.cross_entropy(scores, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "cross_entropy": cross_entropy}


def score_error(loss: LossName, scores: Tensor, one_hot_targets: Tensor) -> Tensor:
    """Derivative of each sample's loss with respect to its scores, ``[batch, classes]``."""
    answer = scores if loss == "mse" else torch.softmax(scores, dim=1)
    return answer - one_hot_targets


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """``targets`` ``[batch]`` as rows of zeros with a one, in the shape, type and device of ``like`` ``[batch, classes]``."""
    return torch.zeros_like(like).scatter_(1, targets.unsqueeze(1), 1.0)
