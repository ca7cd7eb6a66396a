"""Several weight tensors as one flat buffer of units, which are what is pruned and grown.

A unit of a convolution is a single weight (granularity 4), a kernel row (3), a kernel slice (2) or a whole filter (1); a unit of
any other layer is a single weight. The units of a tensor are contiguous and in memory order, tensors follow one another.
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
    """Return the shape of a weight's mask.

    Matrices ``[out, in]`` have a mask of their own shape. For a convolution's ``[out, in, *kernel]`` that is all dimensions
    (granularity 4), all but the last (3), the first two (2) or the first (1). The weight of a transposed convolution is
    ``[in, out, *kernel]``, so its filters belong to input channels. Raises ``ValueError`` for a granularity outside 1 to 4.
    """
    if not 1 <= granularity <= 4:
        raise ValueError(f"granularity must be 1, 2, 3 or 4, not {granularity}")
    if len(shape) == 2 or granularity == 4:
        return tuple(shape)
    return tuple(shape[:-1]) if granularity == 3 else tuple(shape[:granularity])


@dataclass(frozen=True)
class Layout:
    """Position of each tensor's units: ``sizes[l]`` units of ``widths[l]`` weights each, from ``offsets[l]`` on."""

    sizes: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], granularity: int) -> Layout:
        """Return the layout of weights of ``shapes``."""
        sizes = tuple(prod(unit_shape(shape, granularity)) for shape in shapes)
        return cls(sizes, tuple(prod(shape) // size for shape, size in zip(shapes, sizes)))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Index of the first unit of every tensor, followed by the total number of units."""
        return tuple(accumulate(self.sizes, initial=0))

    @property
    def total(self) -> int:
        """Number of units."""
        return sum(self.sizes)

    def boundaries(self, device: torch.device | None = None) -> Tensor:
        """:attr:`offsets` as an integer tensor ``[tensors + 1]``."""
        return torch.tensor(self.offsets, device=device)


@dataclass(frozen=True)
class Places:
    """Where every unit of a :class:`Layout` is, as integers ``[units]`` on a device: its tensor, its position there.

    Making them waits for the device, so they are made once and not in every step.
    """

    tensor: Tensor
    position: Tensor

    @classmethod
    def of(cls, layout: Layout, device: torch.device | None = None) -> Places:
        """Return the places of ``layout`` on ``device``."""
        sizes = torch.tensor(layout.sizes)
        tensor = torch.repeat_interleave(torch.arange(len(sizes)), sizes, output_size=layout.total)
        position = torch.arange(layout.total) - layout.boundaries()[tensor]
        return cls(tensor.to(device), position.to(device))


def true_indices(flags: Tensor) -> Tensor:
    """Return the ascending indices ``[k]`` of the true entries of booleans ``[n]``."""
    if flags.device.type == "cpu":  # NumPy is four to ten times faster here
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero().view(-1)


def few_true_indices(flags: Tensor) -> Tensor:
    """Return the same as :func:`true_indices`, faster if only a few of many entries of contiguous ``flags`` are true.

    Looks at eight entries at a time first.
    """
    if flags.device.type != "cpu":
        return true_indices(flags)
    entries = flags.numpy()
    whole = len(entries) // 8 * 8
    eights = entries[:whole].view(np.int64)
    places = np.flatnonzero(eights != 0)
    inside = np.flatnonzero(eights[places].view(np.bool_))
    indices = (places << 3)[inside >> 3] + (inside & 7)
    return torch.from_numpy(np.concatenate([indices, np.flatnonzero(entries[whole:]) + whole]))


def segment_counts(indices: Tensor, boundaries: Tensor) -> Tensor:
    """Return how many of the ascending flat ``indices`` ``[k]`` are in each tensor: integers ``[tensors]``."""
    return torch.searchsorted(indices, boundaries).diff()


def flat_weights(weights: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return all weights one after the other, ``[weights]``, in ``out`` if given."""
    return torch.cat([weight.detach().reshape(-1) for weight in weights], out=out)


def tensor_scores(weight: Tensor, width: int) -> Tensor:
    """Return the magnitude of every unit of one tensor: the mean of ``|weight|`` over its ``width`` weights (section 2.1)."""
    magnitudes = weight.detach().reshape(-1).abs()
    return magnitudes if width == 1 else magnitudes.view(-1, width).mean(dim=1)


def unit_scores(weights: Sequence[Tensor], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Return the magnitudes of the units of all tensors, ``[units]``, in ``out`` if given."""
    return torch.cat([tensor_scores(weight, width) for weight, width in zip(weights, layout.widths)], out=out)


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """Return the k-th smallest (from 1) of ``values`` ``[n]`` as a device scalar, by deterministic kernels on every device."""
    if values.device.type == "cpu":
        return values.kthvalue(k).values
    # kthvalue is refused on CUDA under torch.use_deterministic_algorithms, because its index is not deterministic
    return values.sort().values[k - 1]


def smallest(scores: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Return the ascending positions of the ``counts[l]`` smallest scores of every segment; of equal scores the first ones count.

    ``scores`` ``[sum(sizes)]`` holds segments of ``sizes[l]`` entries one after the other, and ``counts[l] <= sizes[l]``. Nothing
    depends on values on the host, so there is no waiting for the device until the final conversion to indices.
    """
    flags = []
    for segment, count in zip(scores.split(list(sizes)), counts):
        if count == 0:
            flags.append(torch.zeros_like(segment, dtype=torch.bool))
            continue
        limit = kth_smallest(segment, count)
        below, ties = segment < limit, segment == limit
        room = count - below.sum()
        flags.append(below | (ties & (ties.cumsum(0) <= room)))
    return true_indices(torch.cat(flags))
