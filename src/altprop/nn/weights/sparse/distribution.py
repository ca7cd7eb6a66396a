"""The initial density of each tensor, and random positions for its active units."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["equal", "uniform", "erk"]
"""``equal``: the same sparsity in every tensor (section 2.1). The others are additions from Evci et al., arXiv 1911.11134:
``uniform``: the model's first layer is dense and the others are equal; ``erk``: Erdős-Rényi-kernel densities."""


def active_count(sparsity: float, units: int) -> int:
    """Return the number of units that start active: ``floor((1 - s) n + 0.1)`` (section 2.1)."""
    return int((1.0 - sparsity) * units + 0.1)


def sparsities(
    distribution: Distribution, targets: Sequence[float], shapes: Sequence[Sequence[int]], first: Sequence[bool]
) -> list[float]:
    """Return the sparsity of every tensor of ``shapes``, given a target for each and whether it is of the model's first layer.

    ``erk`` needs the same target for all tensors and returns ``1 - density``: the density of a tensor is in proportion to the sum
    of its dimensions over their product, tensors that would exceed 1 are dense, and the total number of weights is that of the
    target. Raises ``ValueError`` for different targets with ``erk``.
    """
    if distribution == "equal":
        return list(targets)
    if distribution == "uniform":
        return [0.0 if is_first else target for target, is_first in zip(targets, first)]
    if len(set(targets)) != 1:
        raise ValueError("erk distributes one overall sparsity; give one number")
    return [1.0 - density for density in erk_densities(1.0 - targets[0], shapes)]


def erk_densities(density: float, shapes: Sequence[Sequence[int]]) -> list[float]:
    """Return Erdős-Rényi-kernel densities with ``sum(density_l n_l) = density sum(n_l)`` (arXiv 1911.11134, section 3).

    ``n_l`` is the number of weights of tensor l.
    """
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


def capped(targets: Sequence[float], caps: Sequence[float | None], sizes: Sequence[int]) -> list[float]:
    """Limit the sparsities ``targets`` to ``caps``; the other tensors make up the difference, so that the total stays the same.

    Section 2.7's special case of the MNIST perceptron is a cap of 0.9 on the last layer. All tensors that do not exceed a cap
    (None: no cap) get the sparsity that leaves ``sum((1 - target_l) n_l)`` units in total. If no tensor exceeds its cap,
    ``targets`` are returned.
    """
    over = [cap is not None and value > cap for value, cap in zip(targets, caps)]
    if not any(over):
        return list(targets)
    total = sum((1.0 - value) * size for value, size in zip(targets, sizes))
    in_capped = sum((1.0 - cap) * size for cap, size, is_over in zip(caps, sizes, over) if is_over and cap is not None)
    rest = sum(size for size, is_over in zip(sizes, over) if not is_over)
    shared = 1.0 - (total - in_capped) / rest
    return [cap if is_over and cap is not None else shared for cap, is_over in zip(caps, over)]


def random_mask(sizes: Sequence[int], counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return a flat mask ``[sum(sizes)]`` of zeros and ``counts[l]`` uniformly drawn ones in every tensor, on the CPU."""
    mask = torch.zeros(sum(sizes))
    offset = 0
    for size, count in zip(sizes, counts):
        mask[offset + torch.randperm(size, generator=generator)[:count]] = 1.0
        offset += size
    return mask
