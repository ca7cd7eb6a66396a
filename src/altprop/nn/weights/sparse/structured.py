"""Structured RigL: sparse weights that move such that every neuron keeps the same number of inputs.

Lasby, Golubeva, Evci, Nica and Ioannou (2024), *Dynamic Sparse Training with Structured Sparsity*, ICLR, arXiv 2305.02299.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Unpack

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from altprop.nn.weights.base import KEY, WeightsContext
from altprop.nn.weights.layers import select
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.grow import GradientGrow, gradients_of
from altprop.nn.weights.sparse.layout import smallest, true_indices
from altprop.nn.weights.sparse.prune import FractionPrune
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.nn.weights.sparse.redistribute import WithinTensor
from altprop.nn.weights.sparse.static import FixedBudgetOptions
from altprop.problems import ConfigError, Problem
from altprop.ranges import NonNegativeInt, Probability, Table


class StructuredRigL(DynamicSparse):
    """RigL with a constant fan-in and neuron ablation (SRigL).

    A neuron is an output of a linear layer or a channel of a convolution; its fan-in is its number of active weights. All neurons
    of a layer have the same fan-in, except for ablated ones, which have no active weight and stay ablated. Updates happen when
    those of :class:`DynamicSparse` do, in every layer on its own (:func:`structured_update`).

    Args:
        fraction: Share of a layer's active weights that is pruned in an update.
        decay: ``cosine``: the share falls to zero over the time of the updates; ``constant``: it stays the same.
        gamma_sal: A neuron with fewer salient weights than this share of its fan-in is ablated. 0 ablates none.
        period: Steps between updates, as a table over epochs.
        stop_epoch: 0-based epoch from which on nothing moves; None for no stop.
        optimizer_state: Whether to ``reset`` momentum and other optimizer state of moved weights to zero, or to ``keep`` it.
        **options: Those of :class:`altprop.nn.weights.sparse.static.FixedBudget`; ``granularity`` must be 4.

    Raises:
        ConfigError: If an option is out of range.
    """

    def __init__(
        self,
        *,
        fraction: Annotated[float, Gt(0), Lt(1)] = 0.3,
        decay: Literal["constant", "cosine"] = "cosine",
        gamma_sal: Probability = 0.3,
        period: Table,
        stop_epoch: NonNegativeInt | None = None,
        optimizer_state: Literal["keep", "reset"] = "reset",
        **options: Unpack[FixedBudgetOptions],
    ) -> None:
        if problems := list(_problems(fraction, gamma_sal, options.get("granularity", 4))):
            raise ConfigError(problems)
        super().__init__(
            prune=FractionPrune(fraction=fraction, decay=decay),
            redistribute=WithinTensor(),
            grow=GradientGrow(),
            period=period,
            stop_epoch=stop_epoch,
            optimizer_state=optimizer_state,
            **options,
        )
        self.fraction = fraction
        self.decay = decay
        self.gamma_sal = gamma_sal

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Draw masks with a constant fan-in.

        Raises ``ConfigError`` if nothing is selected, a name fits no layer, or a transposed convolution is selected, whose weight
        has one row for each input.
        """
        transposed = [
            layer.name for layer in select(model, self.layer_selectors, self.dense_selectors) if layer.transposed_groups
        ]
        if transposed:
            description = f"structured_rigl does not support transposed convolutions: {', '.join(transposed)}"
            raise ConfigError([Problem(f"{KEY}.dense", description, "their names", f"{KEY}.dense=[{','.join(transposed)}]")])
        super().attach(model, context)
        for part, rows, active in zip(self._rows(self.weights.mask), self._neurons(), self.weights.active, strict=True):
            fan_in = max(1, round(active / rows))
            part.copy_(constant_fan_in_mask(rows, part.shape[1], fan_in, context.generator))
        self._masks_changed()

    def start_from_other_runs(self) -> None:
        """Copy weights and mask from the checkpoints of the options. Raises ``ConfigError`` for different fan-ins in a layer."""
        super().start_from_other_runs()
        if self.mask_from is not None:
            for name, part in zip(self.weights.names, self._rows(self.weights.alive), strict=True):
                fan_ins = part.sum(dim=1)
                if len(fan_ins[fan_ins > 0].unique()) > 1:
                    description = f"the neurons of {name} have different fan-ins in {self.mask_from}"
                    raise ConfigError([Problem(f"{KEY}.mask_from", description, "a run with algorithm/weights=structured_rigl")])
            self._masks_changed()

    def _masks_changed(self) -> None:
        self.weights.recount()
        self.record = MovementRecord(self.weights.mask)
        self.budgets = list(self.weights.active)

    def _neurons(self) -> list[int]:
        return [weight.shape[0] for weight in self.weights.weights]

    def _rows(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat buffer ``[units]``, one ``[neurons, inputs]`` for each layer."""
        return [part.view(rows, -1) for part, rows in zip(self.weights.parts(flat), self._neurons(), strict=True)]

    def _update(self, progress: float, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        weights = self.weights
        share = self.fraction
        if self.decay == "cosine":
            share *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        magnitudes, gradients = (self._rows(flat) for flat in (weights.scores(), gradients_of(weights).abs()))
        alive = self._rows(weights.alive)
        after = [
            structured_update(each, magnitude, gradient, prune=int(share * active), budget=budget, gamma_sal=self.gamma_sal)
            for each, magnitude, gradient, active, budget in zip(
                alive, magnitudes, gradients, weights.active, self.budgets, strict=True
            )
        ]
        now = torch.cat([mask.reshape(-1) for mask in after])
        pruned, grown = true_indices(weights.alive & ~now), true_indices(now & ~weights.alive)
        weights.switch(pruned, False)
        self._clear_inactive(optimizers)
        weights.switch(grown, True)
        weights.active = [
            before - lost + new
            for before, lost, new in zip(weights.active, weights.counts(pruned), weights.counts(grown), strict=True)
        ]
        self.record.moved(pruned, grown, weights.alive)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Return the metrics of :class:`DynamicSparse` and each layer's fan-in and number of neurons that are not ablated."""
        metrics = super().epoch_end(epoch)
        for name, part in zip(self.weights.names, self._rows(self.weights.alive), strict=True):
            fan_ins = part.sum(dim=1)
            metrics[f"fan_in/{name}"], metrics[f"neurons/{name}"] = fan_ins.amax(), fan_ins.count_nonzero()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "budgets": self.budgets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.budgets = list(state["budgets"])

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        yield from _problems(config.get("fraction", 0.3), config.get("gamma_sal", 0.3), config.get("granularity", 4))


def constant_fan_in_mask(neurons: int, inputs: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """Return a mask ``[neurons, inputs]`` of zeros and ``fan_in`` uniformly drawn ones in every row, on the CPU."""
    order = torch.rand(neurons, inputs, generator=generator).argsort(dim=1)
    return torch.zeros(neurons, inputs).scatter_(1, order[:, :fan_in], 1.0)


def structured_update(
    alive: Tensor, magnitudes: Tensor, gradients: Tensor, *, prune: int, budget: int, gamma_sal: float
) -> Tensor:
    """Return the active weights of one layer after an update: booleans ``[neurons, inputs]``.

    1. The weights that a plain RigL update would leave active are salient: all active ones but the ``prune`` smallest, and the
       ``prune`` inactive ones with the largest gradients.
    2. Neurons with fewer salient weights than ``gamma_sal`` times their fan-in are ablated, but not the last one.
    3. The new fan-in is ``budget`` divided by the number of neurons left, rounded down.
    4. The ``prune`` smallest active weights of the layer are pruned, and all of ablated neurons.
    5. Every neuron left grows weights up to the new fan-in, in the order of falling gradients. Weights that were pruned just now
       come last.

    Args:
        alive: The active weights before the update, booleans ``[neurons, inputs]``. Rows have equal numbers of them, or none.
        magnitudes: ``|weight|`` ``[neurons, inputs]``.
        gradients: ``|gradient|`` of the effective weights ``[neurons, inputs]``.
        prune: Number of weights to prune, less than that of active ones.
        budget: Number of weights that may be active in the layer.
        gamma_sal: Threshold of ablation.
    """
    inputs = alive.shape[1]
    fan_ins = alive.sum(dim=1)
    present = fan_ins > 0
    free = ~alive & present[:, None]
    doomed = _smallest_among(alive, magnitudes, prune)
    wanted = _smallest_among(free, -gradients, min(prune, int(free.sum())))
    salient = ((alive & ~doomed) | wanted).sum(dim=1)
    fan_in = int(fan_ins.amax())
    left = present & (salient >= gamma_sal * fan_in)
    if not bool(left.any()):
        left = torch.zeros_like(present).index_fill_(0, salient.masked_fill(~present, -1).argmax(), True)
    target = min(inputs, max(1, budget // int(left.sum())))
    survivors = alive & ~doomed & left[:, None]
    candidates = gradients.masked_fill(doomed, -1.0).masked_fill(survivors, math.inf)
    rank = torch.empty_like(candidates, dtype=torch.int64)
    order = candidates.argsort(dim=1, descending=True, stable=True)
    rank.scatter_(1, order, torch.arange(inputs, device=alive.device).expand_as(order))
    return (rank < target) & left[:, None]


def _smallest_among(eligible: Tensor, scores: Tensor, count: int) -> Tensor:
    """Return booleans of the ``count`` smallest ``scores`` among the ``eligible``; of equal ones the first count."""
    flat = scores.masked_fill(~eligible, math.inf).reshape(-1)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    return chosen.index_fill_(0, smallest(flat, [len(flat)], [count]), True).view_as(eligible)


def _problems(fraction: object, gamma_sal: object, granularity: object) -> Iterator[Problem]:
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        yield Problem(f"{KEY}.fraction", str(fraction), "between 0 and 1", f"{KEY}.fraction=0.3")
    if not isinstance(gamma_sal, int | float) or not 0 <= gamma_sal <= 1:
        yield Problem(f"{KEY}.gamma_sal", str(gamma_sal), "0 to 1; 0 ablates no neuron", f"{KEY}.gamma_sal=0.3")
    if granularity != 4:
        yield Problem(f"{KEY}.granularity", repr(granularity), "4, single weights", f"{KEY}.granularity=4")
