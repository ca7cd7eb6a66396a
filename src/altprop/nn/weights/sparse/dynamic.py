"""Sparse weights whose structure moves while they are trained: prune, redistribute, grow (sections 2.4 and 2.5)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from altprop.names import builds
from altprop.nn.weights.base import KEY, WeightsContext
from altprop.nn.weights.sparse.base import reset_inactive_state
from altprop.nn.weights.sparse.grow import Grow, RandomGrow, random_free_on_device
from altprop.nn.weights.sparse.layout import Places
from altprop.nn.weights.sparse.noise import LangevinNoise
from altprop.nn.weights.sparse.prune import Prune, SignChangePrune, keep_one
from altprop.nn.weights.sparse.redistribute import Redistribute, WithinTensor, revived
from altprop.nn.weights.sparse.static import FixedBudget, FixedBudgetOptions
from altprop.nn.weights.tables import as_table, at_epoch, epoch_of, table_problems
from altprop.problems import Problem
from altprop.ranges import NonNegativeInt, Table, Text

log = logging.getLogger(__name__)


class DynamicSparse(FixedBudget):
    """Every ``period`` steps some active units are pruned and as many are grown elsewhere (sections 2.4 and 2.5).

    An update follows a step whose 0-based number is a positive multiple of the period, and every step if the period is 1, while
    the epoch is below ``stop_epoch``. A tensor without an active unit grows one at every update.

    Args:
        prune: Which active units to remove.
        redistribute: How many of the freed units each tensor gets back.
        grow: Which free units to activate.
        period: Steps between updates, as a table over epochs.
        stop_epoch: 0-based epoch from which on nothing moves, or a share of the run such as ``75%``; None for no stop.
        noise: Langevin noise in the gradients while the structure moves; None for no noise.
        new_weights: ``zero``: new weights are zero; ``init``: all inactive weights are redrawn at every update.
        optimizer_state: Whether to ``keep`` momentum and other optimizer state of pruned and grown weights, as published, or to
            ``reset`` it to zero.
        **options: Those of :class:`FixedBudget`.
    """

    moves: ClassVar[bool] = True

    def __init__(
        self,
        *,
        prune: Prune,
        redistribute: Redistribute,
        grow: Grow,
        period: Table,
        stop_epoch: NonNegativeInt | Text | None = None,
        noise: LangevinNoise | None = None,
        new_weights: Literal["zero", "init"] = "zero",
        optimizer_state: Literal["keep", "reset"] = "keep",
        **options: Unpack[FixedBudgetOptions],
    ) -> None:
        super().__init__(**options)
        if self.granularity not in prune.granularities:
            raise ValueError(f"{type(prune).__name__} works on single weights: granularity must be 4, not {self.granularity}")
        self.prune = prune
        self.redistribute = redistribute
        self.grow = grow
        self.period = as_table(period)
        self.stop_epoch = stop_epoch
        self.noise = noise
        self.new_weights = new_weights
        self.optimizer_state = optimizer_state
        self.last_epoch = stop_epoch if isinstance(stop_epoch, int) else None  # a share of the run is known in attach
        self.epoch = 0

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        super().attach(model, context)
        self.prune.attach(self.weights, context.generator)
        self.last_epoch = None if self.stop_epoch is None else epoch_of(self.stop_epoch, context.total_epochs)
        last_epoch = context.total_epochs if self.last_epoch is None else min(self.last_epoch, context.total_epochs)
        self.update_steps = max(1, last_epoch * context.steps_per_epoch)
        # DeepR moves weights after every step, so there its update must not synchronize; on a CPU there is nothing to wait for
        self.without_sync = (
            context.device.type != "cpu"
            and isinstance(self.prune, SignChangePrune)
            and isinstance(self.redistribute, WithinTensor)
            and type(self.grow) is RandomGrow
        )
        if self.without_sync:
            _ = self.places  # made here, so that no step waits for the device

    @cached_property
    def places(self) -> Places:
        """Where every unit is, on the device, for updates without a host sync."""
        return Places.of(self.weights.layout, self.context.device)

    def start_from_other_runs(self) -> None:
        super().start_from_other_runs()
        if self.weights_from is not None or self.mask_from is not None:
            self.prune.attach(self.weights, self.context.generator)

    def starts_empty(self, names: Sequence[str]) -> None:
        """Warn of the layers ``names`` in which nothing is active until the first update."""
        if self.mask_from is None:
            log.warning("%s.sparsity leaves nothing active in %s until the first update", KEY, ", ".join(names))

    # -- training --------------------------------------------------------------------------------------------------------------

    @property
    def moving(self) -> bool:
        """Whether the structure can change in this epoch."""
        return self.last_epoch is None or self.epoch < self.last_epoch

    def due(self, step: int) -> bool:
        """Return whether an update follows step ``step`` (0-based, counted over all epochs)."""
        period = int(at_epoch(self.period, self.epoch))
        return self.moving and step % period == 0 and (step > 0 or period == 1)

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self.epoch = epoch

    def step_start(self, step: int) -> None:
        if self.grow.needs_gradient:
            self.weights.capture_gradients(self.due(step))

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        parameters = list(parameters)
        super().adjust_gradients(parameters)
        if self.noise is not None and self.moving:
            self.noise.add(self.weights, {id(parameter) for parameter in parameters}, self.epoch, self.generator)

    @torch.no_grad()
    def step_end(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if self.due(step):
            if self.without_sync and min(self.weights.active) > 0:
                self._update_without_sync(optimizers)
            else:
                self._update(step / self.update_steps, optimizers)

    def _update(self, progress: float, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        weights = self.weights
        pruned = self.prune.select(weights, progress)
        lost = weights.counts(pruned)
        if any(before == size == count for before, size, count in zip(weights.active, weights.layout.sizes, lost)):
            pruned = keep_one(pruned, lost, weights.active)  # nothing could grow in a full tensor that loses everything
            lost = weights.counts(pruned)
        survivors = [before - count for before, count in zip(weights.active, lost)]
        # units cannot be pruned and grown in the same update, so the free units are those that were inactive before it
        free = [size - before for size, before in zip(weights.layout.sizes, weights.active)]
        counts = revived(self.redistribute.counts(lost, survivors, free, self.context.generator), survivors, free)
        grown = self.grow.select(weights, weights.alive, counts, free, self.generator)
        weights.switch(pruned, False)
        self._clear_inactive(optimizers)
        weights.switch(grown, True)
        weights.active = [left + count for left, count in zip(survivors, counts)]
        self.prune.after_update(sum(lost))
        self.record.moved(pruned, grown, weights.alive)
        if sum(counts) < sum(lost):
            log.warning("%d pruned units could not be grown again: the tensors are full", sum(lost) - sum(counts))

    def _update_without_sync(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Sign-change pruning with random growth inside each tensor, entirely on the device."""
        weights = self.weights
        assert isinstance(self.prune, SignChangePrune)
        pruned = self.prune.flips(weights)
        counts = torch.stack([part.sum() for part in weights.parts(pruned)])
        grown = random_free_on_device(weights.alive, self.places, counts, self.generator)
        weights.switch_where(pruned, False)
        self._clear_inactive(optimizers)
        weights.switch_where(grown, True)
        self.record.moved_on_device(pruned, grown)

    def _clear_inactive(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Zero or redraw the stored weights at every inactive position, including those about to grow (section 2.1)."""
        weights = self.weights
        keep = [masking.broadcast() for masking in weights.maskings]
        for weight, mask in zip(weights.weights, keep):
            weight.mul_(mask)
            if self.new_weights == "init":
                drawn = torch.randn(weight.shape, generator=self.generator, device=weight.device, dtype=weight.dtype)
                weight.addcmul_(drawn, 1.0 - mask, value=new_weight_deviation(weight.shape))
        if self.optimizer_state == "reset":
            reset_inactive_state(weights.weights, keep, optimizers)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        metrics = super().epoch_end(epoch)
        metrics.update(self.record.epoch_end())
        for name, value in self.prune.metrics().items():
            metrics[name] = torch.tensor(value, device=self.weights.device)
        return metrics

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "prune": self.prune.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.prune.load_state_dict(state["prune"])

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        yield from table_problems(f"{KEY}.period", config.get("period"), whole=True, least=1)
        stop_epoch = config.get("stop_epoch")
        if stop_epoch is not None:
            try:
                wrong = epoch_of(stop_epoch, 1) < 0
            except ValueError:
                wrong = True
            if wrong:
                allowed = "an epoch, counted from 0, a share of the run such as 75%, or null for no stop"
                yield Problem(f"{KEY}.stop_epoch", str(stop_epoch), allowed, f"{KEY}.stop_epoch=75%")
        if builds(config.get("prune"), SignChangePrune) and config.get("granularity", 4) != 4:
            description = f"{config.get('granularity')} with prune=sign_change"
            yield Problem(
                f"{KEY}.granularity", description, "4, because signs are those of single weights", f"{KEY}.granularity=4"
            )


def new_weight_deviation(shape: Sequence[int]) -> float:
    """Return the standard deviation of redrawn weights.

    The variance is ``2 / (out kh kw)`` for a convolution and ``1 / in`` for a linear layer.
    """
    variance = 2.0 / (shape[0] * prod(shape[2:])) if len(shape) > 2 else 1.0 / shape[1]
    return float(variance**0.5)
