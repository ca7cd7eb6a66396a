"""The order of the samples of one epoch, and which part of a mini-batch belongs to which rank."""

from __future__ import annotations

import torch
from torch import Tensor

from altprop.seeding import derive_seed


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """A permutation ``[num_samples]`` int64 on the CPU, a function of ``seed`` and ``epoch`` alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_samples, generator=generator)


def training_slices(num_samples: int, batch_size: int, drop_last: bool, rank: int = 0, world_size: int = 1) -> list[slice]:
    """The part of each global mini-batch that ``rank`` trains on, as slices of the epoch's order.

    All ranks get slices of one size, so that averaging their mean gradients gives the mean over the whole mini-batch; of a last
    partial mini-batch the fewer than ``world_size`` samples that cannot be shared out evenly are left out of that epoch.

    :raises ValueError: where ``batch_size`` cannot be shared out evenly.
    """
    if batch_size % world_size:
        raise ValueError(f"a mini-batch of {batch_size} cannot be shared out evenly among {world_size} ranks")
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
    """The part of each mini-batch that ``rank`` evaluates: every sample goes to exactly one rank, none is left out."""
    slices = []
    for start in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - start)
        part = slice(start + count * rank // world_size, start + count * (rank + 1) // world_size)
        if part.stop > part.start:
            slices.append(part)
    return slices
