"""Cross-entropy whose true-class probability is bounded below."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def clamped_cross_entropy(scores: Tensor, targets: Tensor, minimum: float = 1e-5) -> Tensor:
    """``-(1 / B) sum_b log clamp(softmax(scores_b)[targets_b], minimum, 1)``, of ``[batch, classes]`` and ``[batch]``.

    A sample whose true class has a probability below ``minimum`` gets no gradient; the loss never exceeds ``-log(minimum)``.
    """
    probabilities = torch.softmax(scores, dim=1).gather(1, targets[:, None])
    return -probabilities.clamp(minimum, 1.0).log().mean()


class ClampedCrossEntropy(nn.Module):
    """See :func:`clamped_cross_entropy`; the loss of asynchronous decoupled greedy learning as published."""

    def __init__(self, minimum: float = 1e-5) -> None:
        super().__init__()
        self.minimum = minimum

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return clamped_cross_entropy(scores, targets, self.minimum)
