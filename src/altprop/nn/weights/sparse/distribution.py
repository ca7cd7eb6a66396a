"""How dense each tensor starts, and the positions drawn for it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["equal", "uniform", "erk"]
"""``equal``: the same sparsity in every tensor (section 2.1). ``uniform`` and ``erk`` are additions from Evci et al.,
arXiv 1911.11134: the first tensor dense and the others equal; Erdős-Rényi-kernel densities."""


def active_count(sparsity: float, units: int) -> int:
    """Units that start active: ``floor((1 - s) n + 0.1)`` (section 2.1)."""
    return int((1.0 - sparsity) * units + 0.1)


def sparsities(distribution: Distribution, wanted: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[float]:
    """The sparsity of every tensor of ``shapes``, given the ``wanted`` one of each.

    ``erk`` needs the same wanted value for all and returns ``1 - density``, where the density of a tensor is in proportion to the
    sum of its dimensions over their product, tensors that would exceed 1 are dense, and the total number of weights is the wanted
    one. Raises ``ValueError`` for different wanted values with ``erk``.
    """
    if distribution == "equal":
        return list(wanted)
    if distribution == "uniform":
        return [0.0, *wanted[1:]]
    if len(set(wanted)) != 1:
        raise ValueError("erk distributes one overall sparsity; give one number")
    return [1.0 - density for density in erk_densities(1.0 - wanted[0], shapes)]


def erk_densities(density: float, shapes: Sequence[Sequence[int]]) -> list[float]:
    """Erdős-Rényi-kernel densities with ``sum(density_l weights_l) = density sum(weights_l)`` (arXiv 1911.11134, section 3)."""
    sizes = [prod(shape) for shape in shapes]
    ratios = [sum(shape) / size for shape, size in zip(shapes, sizes)]
    dense: set[int] = set()
    while True:
        budget = density * sum(sizes) - sum(sizes[place] for place in dense)
        spread = sum(ratio * size for place, (ratio, size) in enumerate(zip(ratios, sizes)) if place not in dense)
        scale = budget / spread if spread else 0.0
        above = {place for place, ratio in enumerate(ratios) if place not in dense and ratio * scale > 1.0}
        if not above:
            return [1.0 if place in dense else ratio * scale for place, ratio in enumerate(ratios)]
        dense |= above


def capped(wanted: Sequence[float], caps: Sequence[float | None], sizes: Sequence[int]) -> list[float]:
    """``wanted`` sparsities with a largest one for some tensors; the others take up the difference so that the total stays.

    Section 2.7's special case of the MNIST perceptron is a cap of 0.9 on the last layer. Tensors without a cap (None) all get the
    sparsity that leaves ``sum((1 - wanted_l) n_l)`` units in all. Without a tensor above its cap, ``wanted`` is returned.
    """
    over = [cap is not None and value > cap for value, cap in zip(wanted, caps)]
    if not any(over):
        return list(wanted)
    kept = sum((1.0 - value) * size for value, size in zip(wanted, sizes))
    kept_in_capped = sum((1.0 - cap) * size for cap, size, is_over in zip(caps, sizes, over) if is_over and cap is not None)
    rest = sum(size for size, is_over in zip(sizes, over) if not is_over)
    shared = 1.0 - (kept - kept_in_capped) / rest
    return [cap if is_over and cap is not None else shared for cap, is_over in zip(caps, over)]


def random_mask(sizes: Sequence[int], counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """A flat mask ``[sum(sizes)]`` of zeros and ones with ``counts[l]`` ones at uniformly drawn places of every tensor (CPU)."""
    mask = torch.zeros(sum(sizes))
    offset = 0
    for size, count in zip(sizes, counts):
        mask[offset + torch.randperm(size, generator=generator)[:count]] = 1.0
        offset += size
    return mask
