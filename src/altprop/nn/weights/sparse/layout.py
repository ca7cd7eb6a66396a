"""Several weight tensors as one flat buffer of units, the things that are pruned and grown.

A unit is a single weight (granularity 4), a kernel row (3), a kernel slice (2) or a whole filter (1) of a convolution; of a
linear layer it is always a single weight. Units of one tensor are contiguous and in memory order, tensors follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np
import torch
from torch import Tensor


def unit_shape(shape: Sequence[int], granularity: int) -> tuple[int, ...]:
    """Shape of a weight's mask: that of a linear weight ``[out, in]``, the first ``granularity`` dimensions of a convolution's
    ``[out, in, height, width]``.

    Raises ``ValueError`` for a granularity outside 1 to 4.
    """
    if not 1 <= granularity <= 4:
        raise ValueError(f"granularity must be 1, 2, 3 or 4, not {granularity}")
    return tuple(shape) if len(shape) == 2 else tuple(shape[:granularity])


@dataclass(frozen=True)
class Layout:
    """Where each tensor's units lie: ``sizes[l]`` units of ``widths[l]`` weights, from ``offsets[l]`` on."""

    sizes: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], granularity: int) -> Layout:
        """The layout of weights of ``shapes``."""
        sizes = tuple(prod(unit_shape(shape, granularity)) for shape in shapes)
        return cls(sizes, tuple(prod(shape) // size for shape, size in zip(shapes, sizes)))

    @property
    def offsets(self) -> tuple[int, ...]:
        """First unit of every tensor, and one past the last unit of all."""
        return tuple(accumulate(self.sizes, initial=0))

    @property
    def total(self) -> int:
        """Number of units."""
        return sum(self.sizes)

    def boundaries(self, device: torch.device | None = None) -> Tensor:
        """:attr:`offsets` as integers ``[tensors + 1]``."""
        return torch.tensor(self.offsets, device=device)


def true_indices(chosen: Tensor) -> Tensor:
    """Ascending indices ``[k]`` of the true entries of booleans ``[n]``."""
    if chosen.device.type == "cpu":  # NumPy is four to ten times faster here
        return torch.from_numpy(np.flatnonzero(chosen.numpy()))
    return chosen.nonzero().view(-1)


def few_true_indices(chosen: Tensor) -> Tensor:
    """The same, faster where few of many entries of a contiguous ``chosen`` are true: looks at eight at a time first."""
    if chosen.device.type != "cpu":
        return true_indices(chosen)
    entries = chosen.numpy()
    whole = len(entries) // 8 * 8
    eights = entries[:whole].view(np.int64)
    places = np.flatnonzero(eights != 0)
    inside = np.flatnonzero(eights[places].view(np.bool_))
    found = (places << 3)[inside >> 3] + (inside & 7)
    return torch.from_numpy(np.concatenate([found, np.flatnonzero(entries[whole:]) + whole]))


def segment_counts(indices: Tensor, boundaries: Tensor) -> Tensor:
    """How many of the ascending flat ``indices`` ``[k]`` lie in each tensor: integers ``[tensors]``."""
    return torch.searchsorted(indices, boundaries).diff()


def flat_weights(weights: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """All weights one after the other, ``[weights]``, in ``out`` where given."""
    return torch.cat([weight.detach().reshape(-1) for weight in weights], out=out)


def tensor_scores(weight: Tensor, width: int) -> Tensor:
    """Magnitude of every unit of one tensor: the mean of ``|weight|`` over its ``width`` weights (section 2.1)."""
    magnitudes = weight.detach().reshape(-1).abs()
    return magnitudes if width == 1 else magnitudes.view(-1, width).mean(dim=1)


def unit_scores(weights: Sequence[Tensor], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Magnitudes of the units of all tensors, ``[units]``, in ``out`` where given."""
    return torch.cat([tensor_scores(weight, width) for weight, width in zip(weights, layout.widths)], out=out)
