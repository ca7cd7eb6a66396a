"""Which free units to activate: at random, or where the gradient is largest. Pure functions over flat buffers.

``taken`` ``[units]`` is true where a unit cannot be grown: it is active, or was pruned in this very update. Random growth is
uniform without replacement among the free units of each tensor (section 2.1); it has two implementations of that one
distribution, because counting on the host is cheap on a CPU and makes a GPU wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altprop.nn.weights.sparse_layout import Layout, true_indices
from altprop.nn.weights.sparse_prune import smallest

EXACT_BELOW = 4
"""Free units of a tensor are listed, not guessed, when fewer than one in this many units is free or more than one in this many of
the free ones is wanted; guessing then wastes too many draws."""


def random_free(taken: Tensor, layout: Layout, counts: Sequence[int], free: Sequence[int], generator: torch.Generator) -> Tensor:
    """``counts[l]`` of the ``free[l]`` free units of every tensor, uniformly without replacement: flat indices in any order.

    ``counts[l] <= free[l]``. For the CPU.
    """
    offsets, sizes = layout.offsets, layout.sizes
    chosen = []
    guessed = {}
    for place, (count, room) in enumerate(zip(counts, free)):
        if count == 0:
            continue
        if room * EXACT_BELOW < sizes[place] or count * EXACT_BELOW > room:
            candidates = true_indices(~taken[offsets[place] : offsets[place + 1]])
            order = torch.randperm(room, generator=generator)
            chosen.append(candidates[order[:count]] + offsets[place])
        else:
            guessed[place] = count
    if guessed:
        chosen += _guess(taken.numpy().copy(), layout, guessed, generator)
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)


def _guess(taken: NDArray[np.bool_], layout: Layout, counts: dict[int, int], generator: torch.Generator) -> list[Tensor]:
    """Rejection sampling: all tensors in one draw of as many positions as are missing, until none is.

    A position that is taken, or was drawn before, does not count; what is drawn is never more than what is missing, so that
    nothing has to be given back. ``taken`` is overwritten. Positions are sorted, which finds repeated ones and keeps memory
    accesses in order.
    """
    kind: Any = np.int32 if layout.total < 1 << 31 else np.int64  # sorting is the largest part of the work
    missing = np.array(list(counts.values()))
    sizes = np.array([layout.sizes[place] for place in counts], dtype=kind)
    starts = np.array([layout.offsets[place] for place in counts], dtype=kind)
    chosen = []
    while missing.any():
        # 53 random bits: the bias is below 2^-21 for any tensor of fewer than 2^32 units, and u * size never rounds up to size
        numbers = torch.rand(int(missing.sum()), generator=generator, dtype=torch.float64).numpy()
        positions = (numbers * np.repeat(sizes, missing)).astype(kind) + np.repeat(starts, missing)
        positions.sort()
        new = ~taken[positions]
        new[1:] &= positions[1:] != positions[:-1]
        positions = positions[new]
        taken[positions] = True
        missing -= np.searchsorted(positions, starts + sizes) - np.searchsorted(positions, starts)
        chosen.append(torch.from_numpy(positions.astype(np.int64)))
    return chosen


def random_free_on_device(taken: Tensor, layout: Layout, counts: Tensor, generator: torch.Generator) -> Tensor:
    """The same as :func:`random_free` without a host sync: boolean ``[units]``, true at the grown ones.

    ``counts`` are integers ``[tensors]`` on the device; a tensor with fewer free units gets all of them. Sorts the free units of
    every tensor by a random key and takes the first ones.
    """
    sizes = torch.tensor(layout.sizes, device=taken.device)
    segment = torch.repeat_interleave(torch.arange(len(sizes), device=taken.device), sizes, output_size=layout.total)
    keys = torch.rand(layout.total, generator=generator, device=taken.device, dtype=torch.float64)
    ordered = (segment + torch.where(taken, 0.75, keys * 0.5)).argsort(stable=True)
    rank = torch.arange(layout.total, device=taken.device) - layout.boundaries(taken.device)[segment]
    chosen = (rank < counts[segment]) & ~taken[ordered]
    return torch.zeros_like(taken, dtype=torch.bool).index_put_((ordered,), chosen)


def largest_free(values: Tensor, taken: Tensor, layout: Layout, counts: Sequence[int]) -> Tensor:
    """The ``counts[l]`` free units of every tensor with the largest ``values`` ``[units]``, ascending; first of equals first."""
    # a taken unit compares larger than every free one, so it is never among the counts[l] <= free[l] smallest
    return smallest(torch.where(taken, torch.inf, -values), layout.sizes, counts)
