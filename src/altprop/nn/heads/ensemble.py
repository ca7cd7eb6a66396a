"""Ensembles of the class scores of the blocks' heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

EnsembleOf = Literal["probabilities", "logits"]


def ensemble_weights(count: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``w_i = 2^i / sum_j 2^j`` for ``i = 0 … count - 1``, ``[count]``: each head weighs twice the previous one."""
    working = torch.float64 if dtype == torch.float64 else torch.float32
    # made on the device, and exact powers of two, unlike those of exp2
    powers = torch.ldexp(torch.ones(count, device=device, dtype=working), torch.arange(count, device=device))
    return (powers / (2.0**count - 1.0)).to(dtype)


def ensemble_scores(scores: Sequence[Tensor], average: EnsembleOf) -> Tensor:
    """Return the weighted average over heads of ``scores`` (each ``[batch, classes]``), ``[batch, classes]``.

    ``logits`` averages the raw scores (the paper's CIFAR buffer experiments), ``probabilities`` the softmax outputs (its ImageNet
    experiments). The latter returns the logarithm, so that the cross-entropy of the result is that of the averaged probabilities.
    """
    stacked = torch.stack(list(scores))
    weights = ensemble_weights(len(scores), stacked.device, stacked.dtype).reshape(-1, 1, 1)
    if average == "logits":
        return (weights * stacked).sum(dim=0)
    return torch.logsumexp(stacked.log_softmax(dim=2) + weights.log(), dim=0)
