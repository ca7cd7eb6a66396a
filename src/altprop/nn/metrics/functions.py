"""Metrics of class scores ``[batch, classes]`` with integer targets ``[batch]``, one value per sample."""

from __future__ import annotations

from torch import Tensor

from altprop.ranges import PositiveInt


def top_k(scores: Tensor, targets: Tensor, *, k: PositiveInt = 5) -> Tensor:
    """100 for each sample whose target is among its ``k`` highest scores, and 0 for the others, ``[batch]``.

    The mean is the top-k accuracy in percent. Raises ValueError if ``k`` is below 1 or above the number of classes.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k must be from 1 to {scores.shape[1]}, the number of classes")
    best = scores.topk(k, dim=1).indices
    return 100.0 * (best == targets[:, None]).any(dim=1).float()
