"""Which active units to remove: by threshold, fraction or change of sign (section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor

from altprop.nn.weights.base import KEY
from altprop.nn.weights.sparse.layout import Layout, few_true_indices, smallest, tensor_scores, true_indices
from altprop.nn.weights.sparse.mask import MaskedWeights
from altprop.problems import Problem
from altprop.ranges import PositiveInt, Share

_KEY = f"{KEY}.prune"


class Prune:
    """Selects the active units to remove."""

    granularities: tuple[int, ...] = (1, 2, 3, 4)
    """The granularities with which the strategy works."""

    def attach(self, weights: MaskedWeights, generator: torch.Generator) -> None:
        """Called after the masks are drawn, and again after weights or masks of other runs were loaded."""

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        """Return the ascending flat indices of the units to remove.

        ``progress`` is the elapsed fraction of the time during which updates happen.
        """
        raise NotImplementedError

    def after_update(self, pruned: int) -> None:
        """Called after an update with the total number of units that it pruned."""

    def metrics(self) -> dict[str, float]:
        """Return numbers worth following over time."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


class ThresholdPrune(Prune):
    """Removes every active unit whose magnitude is below one global threshold (sections 2.1 and 2.4).

    The threshold adapts, so that about ``target`` units are pruned per update. A tensor keeps at least one unit.

    Args:
        target: Number of units that an update should prune, in all tensors together.
        initial: The threshold of the first update.
        tolerance: The threshold stays the same if the number of pruned units differs from the target by at most this fraction.
        gain: The threshold is divided by this if more units were pruned, and multiplied by it if fewer were.
    """

    def __init__(
        self,
        *,
        target: PositiveInt,
        initial: Annotated[float, Gt(0), Le(1000)] = 1e-3,
        tolerance: Share = 0.1,
        gain: Annotated[float, Gt(1), Le(1e9)] = 2.0,
    ) -> None:
        self.target = target
        self.threshold = initial
        self.tolerance = tolerance
        self.gain = gain
        self._scratch: Tensor | None = None

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        if self._scratch is None:
            self._scratch = torch.empty_like(weights.alive)
        below = below_threshold(weights.weights, weights.layout, weights.alive, self.threshold, self._scratch)
        return keep_one(below, weights.counts(below), weights.active)

    def after_update(self, pruned: int) -> None:
        """Adapt the threshold (section 2.4)."""
        if pruned > (1 + self.tolerance) * self.target:
            self.threshold /= self.gain
        elif pruned < (1 - self.tolerance) * self.target:
            self.threshold *= self.gain

    def metrics(self) -> dict[str, float]:
        return {"threshold": self.threshold}

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``prune``."""
        yield from _range_problems(f"{_KEY}.target", config.get("target"), 0, math.inf, "1 or more units")
        yield from _range_problems(f"{_KEY}.initial", config.get("initial"), 0, math.inf, "a positive number")
        yield from _range_problems(f"{_KEY}.tolerance", config.get("tolerance"), -1e-300, 1, "0 to below 1")
        yield from _range_problems(f"{_KEY}.gain", config.get("gain"), 1, math.inf, "more than 1")


class FractionPrune(Prune):
    """Removes the ``int(fraction active) + 1`` smallest units of every tensor (section 2.1, as SET does).

    ``decay: cosine`` lets the fraction fall to zero over the time of the updates, ``fraction (1 + cos(pi t / T)) / 2``. This is
    an addition, from Evci et al., arXiv 1911.11134.
    """

    def __init__(self, *, fraction: Annotated[float, Gt(0), Lt(1)], decay: Literal["constant", "cosine"] = "constant") -> None:
        self.fraction = fraction
        self.decay = decay

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        fraction = self.fraction
        if self.decay == "cosine":
            fraction *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return smallest_active(weights, [fraction] * len(weights.active))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``prune``."""
        yield from _range_problems(f"{_KEY}.fraction", config.get("fraction"), 0, 1, "between 0 and 1")


class SignChangePrune(Prune):
    """Removes every active weight whose sign is opposite to the one recorded at the last update (DeepR, section 2.1).

    ``reference: random`` starts from signs that are unrelated to the initial weights, so the first update prunes about half of
    all active weights. The published numbers include this (section 9, trap 2). ``reference: initial_weights`` starts from the
    signs of the weights.
    """

    granularities = (4,)

    def __init__(self, *, reference: Literal["random", "initial_weights"] = "random") -> None:
        self.reference = reference

    def attach(self, weights: MaskedWeights, generator: torch.Generator) -> None:
        if self.reference == "random":
            coins = torch.randint(2, (weights.layout.total,), generator=generator).to(weights.device)
            self.signs = (coins * 2 - 1).to(weights.mask.dtype) * weights.mask
        else:
            self.signs = weights.values().sign()

    def flips(self, weights: MaskedWeights) -> Tensor:
        """Return booleans ``[units]`` of the weights to prune, without a host sync.

        Records the signs of all stored weights, inactive ones included.
        """
        values = weights.values()
        flipped = sign_flips(values, self.signs).logical_and_(weights.alive)
        # completely dense tensors are left alone, because they have no free position where a weight could grow
        for part, size, active in zip(weights.parts(flipped), weights.layout.sizes, weights.active):
            if active == size:
                part.zero_()
        torch.sign(values, out=self.signs)
        return flipped

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        """Return the same weights as :meth:`flips`, as indices. Compares only the active weights, which are few."""
        units, values = weights.active_units(), weights.values()
        flipped = sign_flips(values.index_select(0, units), self.signs.index_select(0, units))
        start = 0
        for size, active in zip(weights.layout.sizes, weights.active):
            if active == size:
                flipped[start : start + active] = False
            start += active
        torch.sign(values, out=self.signs)
        return units.index_select(0, true_indices(flipped))

    def state_dict(self) -> dict[str, Any]:
        return {"signs": self.signs.to(torch.int8)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.signs.copy_(state["signs"])


# -- the functions that the strategies are made of -----------------------------------------------------------------------------


def below_threshold(
    weights: Sequence[Tensor], layout: Layout, alive: Tensor, threshold: float, scratch: Tensor | None = None
) -> Tensor:
    """Return the ascending indices of the active units whose magnitude is strictly below ``threshold``.

    ``alive`` ``[units]`` are booleans. ``scratch``, of the same kind, is overwritten, which saves an allocation on every call.
    """
    below = torch.empty_like(alive) if scratch is None else scratch
    parts = below.split(list(layout.sizes))
    if alive.device.type == "cpu":
        _compare_on_host(weights, layout, parts, threshold)
    else:
        for weight, width, part in zip(weights, layout.widths, parts):
            torch.lt(tensor_scores(weight, width), threshold, out=part)
    return few_true_indices(below.logical_and_(alive))


def _compare_on_host(weights: Sequence[Tensor], layout: Layout, parts: Sequence[Tensor], threshold: float) -> None:
    """Write into ``parts`` which units are below the threshold.

    Works tensor by tensor, so that they stay in the cache. NumPy compares several times faster than torch, and two comparisons
    write less memory than magnitudes would.
    """
    buffer = np.empty(max(layout.sizes), dtype=np.bool_)
    for weight, width, part in zip(weights, layout.widths, parts):
        below = part.numpy()
        if width == 1:
            values = weight.detach().reshape(-1).numpy()
            limit = values.dtype.type(threshold)
            np.less(values, limit, out=below)
            np.logical_and(below, np.greater(values, -limit, out=buffer[: len(below)]), out=below)
        else:
            magnitudes = tensor_scores(weight, width).numpy()
            np.less(magnitudes, magnitudes.dtype.type(threshold), out=below)


def keep_one(pruned: Tensor, counts: Sequence[int], active: Sequence[int]) -> Tensor:
    """Return ``pruned`` without the lowest index of every tensor that would otherwise lose all of its units.

    ``counts`` and ``active`` are the numbers of pruned and of active units of every tensor.
    """
    starts = accumulate(counts, initial=0)
    spared = [start for start, count, number in zip(starts, counts, active) if count == number > 0]
    if not spared:
        return pruned
    keep = torch.ones_like(pruned, dtype=torch.bool)
    keep[spared] = False
    return pruned[keep]


def smallest_active(weights: MaskedWeights, fractions: Sequence[float]) -> Tensor:
    """Return the ascending indices of the ``int(f_l active_l) + 1`` smallest active units of every tensor (section 2.1)."""
    counts = [fraction_count(fraction, active) for fraction, active in zip(fractions, weights.active)]
    active = true_indices(weights.alive)
    return active[smallest(weights.scores()[active], weights.active, counts)]


def fraction_count(fraction: float, active: int) -> int:
    """Return how many of ``active`` units a prune by ``fraction`` removes: ``int(f |A|) + 1``, so at least one, at most all."""
    return min(active, int(fraction * active) + 1)


def sign_flips(values: Tensor, reference: Tensor) -> Tensor:
    """Return booleans that are true where ``values`` have strictly the opposite sign of ``reference`` (-1, 0 or 1).

    A zero never counts.
    """
    return values * reference < 0


def _range_problems(key: str, value: object, low: float, high: float, allowed: str) -> Iterator[Problem]:
    """Yield a problem if ``value`` is a number outside the open interval from ``low`` to ``high``."""
    if isinstance(value, (int, float)) and not low < value < high:
        yield Problem(key, str(value), allowed)
