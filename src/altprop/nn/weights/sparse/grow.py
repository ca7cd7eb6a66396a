"""Which free units to activate: at random, or where the gradient is largest.

``taken`` ``[units]`` is true where a unit cannot be grown, because it is active or was pruned in this very update. Random growth
is uniform without replacement among the free units of each tensor (section 2.1). It has two implementations of that one
distribution, because counting on the host is cheap on a CPU but makes a GPU wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from altprop.nn.weights.sparse.layout import Layout, Places, smallest, true_indices
from altprop.nn.weights.sparse.mask import MaskedWeights

EXACT_BELOW = 4
"""Free units of a tensor are listed instead of guessed if fewer than one in this many units is free, or if more than one in this
many of the free ones is to be grown. Guessing then wastes too many draws."""


class Grow:
    """Selects the free units to activate."""

    needs_gradient = False
    """Whether the gradients of the effective weights must be captured in the steps with an update."""

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Return flat indices, ``counts[l]`` of the ``free[l]`` free units of every tensor. ``generator`` is on the device."""
        raise NotImplementedError


class RandomGrow(Grow):
    """Activates free units uniformly at random (the paper's rule)."""

    def __init__(self) -> None:
        self._scratch: NDArray[np.int32] | None = None

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        if weights.device.type == "cpu":
            if self._scratch is None:
                self._scratch = np.empty(weights.layout.total, dtype=np.int32)
            return random_free(taken, weights.layout, counts, free, generator, self._scratch)
        on_device = torch.tensor(counts, device=weights.device)
        return true_indices(random_free_on_device(taken, Places.of(weights.layout, weights.device), on_device, generator))


class GradientGrow(Grow):
    """Activates the free units with the largest loss gradient in the step of the update (RigL; an addition, arXiv 1911.11134).

    Units of several weights are compared by their mean magnitude. The positions of a layer without a gradient count as equal.
    """

    needs_gradient = True

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        flat = gradients_of(weights)
        magnitudes = [
            part.view(-1, width).abs().mean(dim=1)
            for part, width in zip(flat.split([weight.numel() for weight in weights.weights]), weights.layout.widths)
        ]
        return largest_free(torch.cat(magnitudes), taken, weights.layout, counts)


# -- the functions that the strategies are made of -----------------------------------------------------------------------------


def gradients_of(weights: MaskedWeights) -> Tensor:
    """Return the captured gradients of all effective weights ``[weights]``, summed over processes.

    They are zero for a layer without a gradient.
    """
    gradients = [
        torch.zeros_like(weight) if masking.gradient is None else masking.gradient
        for weight, masking in zip(weights.weights, weights.maskings)
    ]
    flat = torch.cat([gradient.reshape(-1).to(weights.mask.dtype) for gradient in gradients])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flat)
    return flat


def random_free(
    taken: Tensor,
    layout: Layout,
    counts: Sequence[int],
    free: Sequence[int],
    generator: torch.Generator,
    scratch: NDArray[np.int32] | None = None,
) -> Tensor:
    """Draw ``counts[l]`` of the ``free[l]`` free units of every tensor, uniformly without replacement: flat indices in any order.

    Draws random positions and takes the first distinct free ones; ``counts[l] <= free[l]``. For the CPU. ``scratch`` ``[units]``
    is overwritten, which saves an allocation on every call.
    """
    offsets, sizes = layout.offsets, layout.sizes
    picks = []
    guessed = {}
    for place, (count, room) in enumerate(zip(counts, free)):
        if count == 0:
            continue
        if room * EXACT_BELOW < sizes[place] or count * EXACT_BELOW > room:
            candidates = true_indices(~taken[offsets[place] : offsets[place + 1]])
            order = torch.randperm(room, generator=generator)
            picks.append(candidates[order[:count]] + offsets[place])
        else:
            guessed[place] = count
    if guessed:
        scratch = np.empty(layout.total, dtype=np.int32) if scratch is None else scratch
        picks.append(_guess(taken.numpy(), layout, guessed, free, generator, scratch))
    return torch.cat(picks) if picks else torch.empty(0, dtype=torch.int64)


def _guess(
    taken: NDArray[np.bool_],
    layout: Layout,
    counts: dict[int, int],
    free: Sequence[int],
    generator: torch.Generator,
    scratch: NDArray[np.int32],
) -> Tensor:
    """Rejection sampling for all tensors in one draw, repeated with twice as many draws if a tensor did not get enough.

    Starting over instead of topping up keeps the rule simple: the first ``count`` distinct free positions of an independent
    sequence of draws are a uniform sample, however long the sequence.
    """
    needed = np.array(list(counts.values()))
    sizes = np.array([layout.sizes[place] for place in counts])
    starts = np.array([layout.offsets[place] for place in counts])
    expected = needed * sizes / np.array([free[place] for place in counts])
    surplus = 1.1
    while True:
        draws = (surplus * expected).astype(np.int64) + 16
        # the remainder of 62 random bits has a bias below 2^-30 for any tensor of fewer than 2^32 units
        numbers = torch.randint(1 << 62, (int(draws.sum()),), generator=generator).numpy()
        positions = np.repeat(starts, draws) + numbers % np.repeat(sizes, draws)
        positions, order = _first_free(positions, taken, scratch)
        begins = np.searchsorted(order, np.concatenate([[0], draws.cumsum()]))
        if (np.diff(begins) >= needed).all():
            return torch.from_numpy(np.concatenate([positions[at : at + count] for at, count in zip(begins, needed)]))
        surplus *= 2


def _first_free(
    positions: NDArray[np.int64], taken: NDArray[np.bool_], scratch: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct free ones of ``positions`` in the order of their first occurrence, and the places of those."""
    places = np.flatnonzero(~taken[positions])
    candidates = positions[places]
    # scratch need not be cleared, because only what is written here is read; the last write, the first occurrence, remains
    scratch[candidates[::-1]] = places[::-1]
    first = scratch[candidates] == places
    return candidates[first], places[first]


def random_free_on_device(taken: Tensor, places: Places, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return the same as :func:`random_free` without a host sync: booleans ``[units]``, true for the grown units.

    ``counts`` are integers ``[tensors]`` on the device; a tensor with fewer free units gets all of them. Sorts the free units of
    every tensor by a random key and takes the first ones.
    """
    keys = torch.rand(len(taken), generator=generator, device=taken.device, dtype=torch.float64)
    ordered = (places.tensor + torch.where(taken, 0.75, keys * 0.5)).argsort(stable=True)
    grown = (places.position < counts[places.tensor]) & ~taken[ordered]
    return torch.zeros_like(taken, dtype=torch.bool).index_put_((ordered,), grown)


def largest_free(values: Tensor, taken: Tensor, layout: Layout, counts: Sequence[int]) -> Tensor:
    """Return the ascending ``counts[l]`` free units of every tensor with the largest ``values`` ``[units]``.

    Of equal values the first ones count.
    """
    # a taken unit compares larger than every free one, so it is never among the counts[l] <= free[l] smallest
    return smallest(torch.where(taken, torch.inf, -values), layout.sizes, counts)
