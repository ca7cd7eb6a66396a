"""Metrics of class scores ``[batch, classes]`` with integer targets ``[batch]``, one value per sample."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor


def top_k(scores: Tensor, targets: Tensor, *, k: Annotated[int, Ge(1), Le(1000)] = 5) -> Tensor:
    """100 for each sample whose target is among its ``k`` highest scores, and 0 for the others, ``[batch]``.

    The mean is the top-k accuracy in percent; with ``k`` or fewer classes, it is 100. Raises ValueError if ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return 100.0 * (best == targets[:, None]).any(dim=1).float()
