"""The order of samples in an epoch, and the share of each mini-batch that belongs to a rank."""

from __future__ import annotations

import torch
from torch import Tensor

from altprop.seeding import derive_seed


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """Return a permutation ``[num_samples]`` int64 on the CPU that depends on ``seed`` and ``epoch`` only."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_samples, generator=generator)


def training_slices(num_samples: int, batch_size: int, drop_last: bool, rank: int = 0, world_size: int = 1) -> list[slice]:
    """Return the share of each global mini-batch that ``rank`` trains on, as slices of the epoch's order.

    All ranks get slices of equal length, so that averaging their mean gradients gives the mean over the whole mini-batch. If the
    last, smaller mini-batch cannot be divided evenly, its remainder (fewer than ``world_size`` samples) is skipped in that epoch.

    Raises ValueError if ``batch_size`` is not a multiple of ``world_size``.
    """
    if batch_size % world_size:
        raise ValueError(f"a mini-batch of {batch_size} cannot be divided evenly among {world_size} ranks")
    slices = []
    for start in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - start)
        if count < batch_size and drop_last:
            break
        share = count // world_size
        if share:
            slices.append(slice(start + rank * share, start + (rank + 1) * share))
    return slices


def evaluation_slices(num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[slice]:
    """Return the share of each mini-batch that ``rank`` evaluates. Every sample goes to exactly one rank; none is skipped."""
    slices = []
    for start in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - start)
        share = slice(start + count * rank // world_size, start + count * (rank + 1) // world_size)
        if share.stop > share.start:
            slices.append(share)
    return slices
