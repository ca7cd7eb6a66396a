"""Which free units to activate: at random, or where the gradient is largest. Pure functions over flat buffers.

``taken`` ``[units]`` is true where a unit cannot be grown: it is active, or was pruned in this very update. Random growth is
uniform without replacement among the free units of each tensor (section 2.1); it has two implementations of that one
distribution, because counting on the host is cheap on a CPU and makes a GPU wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altprop.nn.weights.sparse.layout import Layout, true_indices
from altprop.nn.weights.sparse.prune import smallest

EXACT_BELOW = 4
"""Free units of a tensor are listed, not guessed, when fewer than one in this many units is free or more than one in this many of
the free ones is wanted; guessing then wastes too many draws."""


def random_free(
    taken: Tensor,
    layout: Layout,
    counts: Sequence[int],
    free: Sequence[int],
    generator: torch.Generator,
    scratch: NDArray[np.int32] | None = None,
) -> Tensor:
    """``counts[l]`` of the ``free[l]`` free units of every tensor, uniformly without replacement: flat indices in any order.

    Draws random positions and keeps the first distinct free ones; ``counts[l] <= free[l]``. For the CPU;
    ``scratch`` ``[units]`` is overwritten, and saves allocating as much every time.
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
        scratch = np.empty(layout.total, dtype=np.int32) if scratch is None else scratch
        chosen.append(_guess(taken.numpy(), layout, guessed, free, generator, scratch))
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)


def _guess(
    taken: NDArray[np.bool_],
    layout: Layout,
    counts: dict[int, int],
    free: Sequence[int],
    generator: torch.Generator,
    scratch: NDArray[np.int32],
) -> Tensor:
    """Rejection sampling: all tensors in one draw, again with twice as many draws where a tensor did not get enough.

    Starting afresh instead of topping up keeps the rule one line: the first ``count`` distinct free positions of an independent
    sequence of draws are a uniform sample, however long the sequence.
    """
    wanted = np.array(list(counts.values()))
    sizes = np.array([layout.sizes[place] for place in counts])
    starts = np.array([layout.offsets[place] for place in counts])
    expected = wanted * sizes / np.array([free[place] for place in counts])
    surplus = 1.1
    while True:
        draws = (surplus * expected).astype(np.int64) + 16
        # the remainder of 62 random bits: its bias is below 2^-30 for any tensor of fewer than 2^32 units
        numbers = torch.randint(1 << 62, (int(draws.sum()),), generator=generator).numpy()
        positions = np.repeat(starts, draws) + numbers % np.repeat(sizes, draws)
        positions, order = _first_free(positions, taken, scratch)
        begins = np.searchsorted(order, np.concatenate([[0], draws.cumsum()]))
        if (np.diff(begins) >= wanted).all():
            return torch.from_numpy(np.concatenate([positions[at : at + count] for at, count in zip(begins, wanted)]))
        surplus *= 2


def _first_free(
    positions: NDArray[np.int64], taken: NDArray[np.bool_], scratch: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct free ones of ``positions`` in the order in which they first occur, and where that is, ascending."""
    places = np.flatnonzero(~taken[positions])
    found = positions[places]
    # only what is written is read, so it need not be cleared; the last one written stays: the first occurrence
    scratch[found[::-1]] = places[::-1]
    first = scratch[found] == places
    return found[first], places[first]


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
