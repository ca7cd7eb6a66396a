"""Which active units to remove: by threshold, fraction or change of sign. Pure functions over flat buffers (section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from altprop.nn.weights.sparse.layout import Layout, few_true_indices, tensor_scores, true_indices


def below_threshold(
    weights: Sequence[Tensor], layout: Layout, alive: Tensor, threshold: float, scratch: Tensor | None = None
) -> Tensor:
    """Ascending indices of the active units whose magnitude is strictly below ``threshold``; ``alive`` ``[units]``.

    ``scratch``, of the kind of ``alive``, is overwritten and saves allocating as much every time.
    """
    chosen = torch.empty_like(alive) if scratch is None else scratch
    parts = chosen.split(list(layout.sizes))
    if alive.device.type == "cpu":
        _compare_on_host(weights, layout, parts, threshold)
    else:
        for weight, width, part in zip(weights, layout.widths, parts):
            torch.lt(tensor_scores(weight, width), threshold, out=part)
    return few_true_indices(chosen.logical_and_(alive))


def _compare_on_host(weights: Sequence[Tensor], layout: Layout, parts: Sequence[Tensor], threshold: float) -> None:
    """Tensor by tensor, so that they stay in the cache; NumPy compares several times faster than torch, and two comparisons
    write less than magnitudes would."""
    buffer = np.empty(max(layout.sizes), dtype=np.bool_)
    for weight, width, part in zip(weights, layout.widths, parts):
        chosen = part.numpy()
        if width == 1:
            values = weight.detach().reshape(-1).numpy()
            limit = values.dtype.type(threshold)
            np.less(values, limit, out=chosen)
            np.logical_and(chosen, np.greater(values, -limit, out=buffer[: len(chosen)]), out=chosen)
        else:
            magnitudes = tensor_scores(weight, width).numpy()
            np.less(magnitudes, magnitudes.dtype.type(threshold), out=chosen)


def keep_one(pruned: Tensor, counts: Sequence[int], active: Sequence[int]) -> Tensor:
    """``pruned`` without the lowest index of every tensor that would otherwise lose all of its units.

    ``counts`` and ``active`` are the numbers of pruned and of active units of every tensor.
    """
    starts = accumulate(counts, initial=0)
    spared = [start for start, count, number in zip(starts, counts, active) if count == number > 0]
    if not spared:
        return pruned
    keep = torch.ones_like(pruned, dtype=torch.bool)
    keep[spared] = False
    return pruned[keep]


def fraction_count(fraction: float, active: int) -> int:
    """Units that a prune by ``fraction`` removes from ``active`` ones: ``int(f |A|) + 1``, so at least one, at most all."""
    return min(active, int(fraction * active) + 1)


def smallest(scores: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Positions of the ``counts[l]`` smallest scores of every segment, ascending; of equal scores the first come first.

    ``scores`` ``[sum(sizes)]`` holds segments of ``sizes[l]`` entries one after the other, and ``counts[l] <= sizes[l]``. Nothing
    depends on values on the host, so the device is never waited for.
    """
    chosen = []
    for segment, count in zip(scores.split(list(sizes)), counts):
        if count == 0:
            chosen.append(torch.zeros_like(segment, dtype=torch.bool))
            continue
        limit = segment.kthvalue(count).values
        below, ties = segment < limit, segment == limit
        room = count - below.sum()
        chosen.append(below | (ties & (ties.cumsum(0) <= room)))
    return true_indices(torch.cat(chosen))


def sign_flips(values: Tensor, reference: Tensor) -> Tensor:
    """Booleans: where ``values`` have strictly the opposite sign of ``reference`` (-1, 0 or 1). A zero never counts."""
    return values * reference < 0


def adapted_threshold(threshold: float, pruned: int, target: int, tolerance: float, gain: float) -> float:
    """The next threshold (section 2.4): divided by ``gain`` when more than ``(1 + tolerance) target`` units were pruned, times
    ``gain`` when fewer than ``(1 - tolerance) target``, else the same.
    """
    if pruned > (1 + tolerance) * target:
        return threshold / gain
    if pruned < (1 - tolerance) * target:
        return threshold * gain
    return threshold
