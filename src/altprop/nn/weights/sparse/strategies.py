"""The three choices of a structure update as objects with state: what to prune, how much each tensor gets back, what to grow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from altprop.nn.weights.sparse.grow import largest_free, random_free, random_free_on_device
from altprop.nn.weights.sparse.layout import true_indices
from altprop.nn.weights.sparse.mask import MaskedWeights
from altprop.nn.weights.sparse.prune import (
    adapted_threshold,
    below_threshold,
    fraction_count,
    keep_one,
    sign_flips,
    smallest,
)
from altprop.nn.weights.sparse.redistribute import proportional, within
from altprop.problems import Problem

_KEY = "algorithm.weights.prune"


class Prune:
    """Chooses the active units to remove."""

    granularities: tuple[int, ...] = (1, 2, 3, 4)

    def attach(self, weights: MaskedWeights, generator: torch.Generator) -> None:
        """Called once, after the masks are drawn."""

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        """Ascending flat indices of the units to remove; ``progress`` is the share of the updates' time that is over."""
        raise NotImplementedError

    def pruned(self, count: int) -> None:
        """Told how many units the update pruned in all."""

    def metrics(self) -> dict[str, float]:
        """Numbers worth following over time."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


class ThresholdPrune(Prune):
    """Every active unit whose magnitude is below one global threshold (sections 2.1 and 2.4).

    The threshold starts at ``initial`` and is multiplied or divided by ``gain`` when an update pruned less or more than
    ``target`` units by more than the share ``tolerance``. A tensor keeps at least one unit.
    """

    def __init__(self, target: int, initial: float = 1e-3, tolerance: float = 0.1, gain: float = 2.0) -> None:
        self.target = target
        self.threshold = initial
        self.tolerance = tolerance
        self.gain = gain
        self._scratch: Tensor | None = None

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        if self._scratch is None:
            self._scratch = torch.empty_like(weights.alive)
        found = below_threshold(weights.weights, weights.layout, weights.alive, self.threshold, self._scratch)
        return keep_one(found, weights.counts(found), weights.active)

    def pruned(self, count: int) -> None:
        self.threshold = adapted_threshold(self.threshold, count, self.target, self.tolerance, self.gain)

    def metrics(self) -> dict[str, float]:
        return {"threshold": self.threshold}

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``prune``."""
        yield from _in_range(f"{_KEY}.target", config.get("target"), 0, math.inf, "1 or more units")
        yield from _in_range(f"{_KEY}.initial", config.get("initial"), 0, math.inf, "a positive number")
        yield from _in_range(f"{_KEY}.tolerance", config.get("tolerance"), -1e-300, 1, "0 to below 1")
        yield from _in_range(f"{_KEY}.gain", config.get("gain"), 1, math.inf, "more than 1")


class FractionPrune(Prune):
    """The ``int(fraction active) + 1`` smallest units of every tensor (section 2.1, as SET does).

    ``decay: cosine`` lets the fraction fall to zero over the time of the updates, ``fraction (1 + cos(pi t / T)) / 2``: an
    addition, from Evci et al., arXiv 1911.11134.
    """

    def __init__(self, fraction: float, decay: Literal["constant", "cosine"] = "constant") -> None:
        self.fraction = fraction
        self.decay = decay

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        fraction = self.fraction
        if self.decay == "cosine":
            fraction *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return smallest_active(weights, [fraction] * len(weights.active))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``prune``."""
        yield from _in_range(f"{_KEY}.fraction", config.get("fraction"), 0, 1, "between 0 and 1")


class SignChangePrune(Prune):
    """Every active weight whose sign is opposite to the one recorded at the last update (DeepR, section 2.1).

    ``reference: random`` starts from signs that have nothing to do with the initial weights, so the first update prunes about
    half of all active weights: what the published numbers contain (section 9, trap 2). ``initial_weights``: from their signs.
    """

    granularities = (4,)

    def __init__(self, reference: Literal["random", "initial_weights"] = "random") -> None:
        self.reference = reference

    def attach(self, weights: MaskedWeights, generator: torch.Generator) -> None:
        if self.reference == "random":
            coins = torch.randint(2, (weights.layout.total,), generator=generator).to(weights.device)
            self.signs = (coins * 2 - 1).to(weights.mask.dtype) * weights.mask
        else:
            self.signs = weights.values().sign()

    def flips(self, weights: MaskedWeights) -> Tensor:
        """Boolean ``[units]`` of the weights to prune; records the signs of all stored weights, inactive ones included."""
        values = weights.values()
        flipped = sign_flips(values, self.signs).logical_and_(weights.alive)
        # completely dense tensors take no part: there is nowhere to grow
        for part, size, active in zip(weights.parts(flipped), weights.layout.sizes, weights.active):
            if active == size:
                part.zero_()
        torch.sign(values, out=self.signs)
        return flipped

    def select(self, weights: MaskedWeights, progress: float) -> Tensor:
        """The same as indices. Looks at the active weights alone, which are few; :meth:`flips` looks at all of them."""
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


class Redistribute:
    """Chooses how many units every tensor gets back."""

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        """Units to grow in every tensor, at most ``free``; ``generator`` is on the host."""
        raise NotImplementedError


class WithinTensor(Redistribute):
    """Every tensor gets back what it lost (SET, DeepR)."""

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        return within(pruned, free)


class ProportionalToSurvivors(Redistribute):
    """The freed units go to the tensors in proportion to what survived in them (dynamic sparse, section 2.4)."""

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        return proportional(pruned, survivors, free, generator)


class Grow:
    """Chooses the free units to activate. ``taken`` is true where a unit is active or was pruned in this update."""

    needs_gradient = False

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Flat indices, ``counts[l]`` in every tensor; ``generator`` is on the device."""
        raise NotImplementedError


class RandomGrow(Grow):
    """Uniformly at random (the paper's rule)."""

    def __init__(self) -> None:
        self._scratch: NDArray[np.int32] | None = None

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        if weights.device.type == "cpu":
            if self._scratch is None:
                self._scratch = np.empty(weights.layout.total, dtype=np.int32)
            return random_free(taken, weights.layout, counts, free, generator, self._scratch)
        wanted = torch.tensor(counts, device=weights.device)
        return true_indices(random_free_on_device(taken, weights.layout, wanted, generator))


class GradientGrow(Grow):
    """Where the magnitude of the loss's gradient is largest in the step of the update (RigL; an addition, arXiv 1911.11134).

    Units of several weights are compared by the mean magnitude. Where a layer got no gradient its positions count as equal.
    """

    needs_gradient = True

    def select(
        self, weights: MaskedWeights, taken: Tensor, counts: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        gradients = [
            torch.zeros_like(weight) if masking.gradient is None else masking.gradient
            for weight, masking in zip(weights.weights, weights.maskings)
        ]
        flat = torch.cat([gradient.reshape(-1).to(weights.mask.dtype) for gradient in gradients])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(flat)
        magnitudes = [
            part.view(-1, width).abs().mean(dim=1)
            for part, width in zip(flat.split([weight.numel() for weight in weights.weights]), weights.layout.widths)
        ]
        return largest_free(torch.cat(magnitudes), taken, weights.layout, counts)


def smallest_active(weights: MaskedWeights, fractions: Sequence[float]) -> Tensor:
    """Ascending indices of the ``int(f_l active_l) + 1`` smallest active units of every tensor (section 2.1)."""
    counts = [fraction_count(fraction, active) for fraction, active in zip(fractions, weights.active)]
    active = true_indices(weights.alive)
    return active[smallest(weights.scores()[active], weights.active, counts)]


def _in_range(key: str, value: object, low: float, high: float, allowed: str) -> Iterator[Problem]:
    if isinstance(value, (int, float)) and not low < value < high:
        yield Problem(key, str(value), allowed)
