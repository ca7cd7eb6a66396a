"""Output losses on class scores ``[batch, classes]`` and integer targets ``[batch]``: mean over the batch, sum over classes.

The hinge losses compare every score with ``Y`` = +1 for the target's class and -1 for all others, one class against the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_margins(scores: Tensor, targets: Tensor) -> Tensor:
    """``Y * scores``, ``[batch, classes]``."""
    margins = -scores
    return margins.scatter(1, targets.unsqueeze(1), scores.gather(1, targets.unsqueeze(1)))


def hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``max(0, 1 - Y x)`` summed over classes."""
    return (1 - class_margins(scores, targets)).clamp(min=0).sum(dim=1).mean()


def truncated_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``min(2, max(0, 1 - Y x))`` summed over classes."""
    return (1 - class_margins(scores, targets)).clamp(0, 2).sum(dim=1).mean()


def squared_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """``max(0, 1 - Y x)^2`` summed over classes."""
    return (1 - class_margins(scores, targets)).clamp(min=0).square().sum(dim=1).mean()


def log_softmax_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """:func:`hinge` on the log-softmax of the scores."""
    return hinge(torch.log_softmax(scores, dim=1), targets)
