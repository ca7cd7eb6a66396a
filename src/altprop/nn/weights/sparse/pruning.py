"""Iterative magnitude pruning of a trained dense network (section 2.7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import KEY, WeightsContext
from altprop.nn.weights.layers import WeightLayer, refuse_unknown, value_for, weight_layers
from altprop.nn.weights.saved_run import saved_masks
from altprop.nn.weights.sparse.base import SparseOptions, SparseRule, full_mask, reset_inactive_state, sparsity_problems
from altprop.nn.weights.sparse.distribution import capped
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.prune import fraction_count, smallest_active
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.problems import ConfigError, Problem
from altprop.ranges import NonNegativeInt, PositiveInt, Share, Sparsity

Profile = Literal["exponential", "cubic"]


def event_fraction(profile: Profile, target: float, event: int, events: int, initial: float = 0.0) -> float:
    """Return the fraction of the active units that event ``event`` (0-based) of ``events`` prunes.

    Together the events lead from the sparsity ``initial``, s, to ``target``, S; the fraction is 0 if s is S or more.
    ``exponential``: ``1 - ((1 - S) / (1 - s))^(1/n)`` every time. ``cubic`` (Zhu and Gupta): the density after k events is
    ``1 - S + (S - s) (1 - k/n)^3``.
    """
    if initial >= target:
        return 0.0
    if profile == "exponential":
        return 1.0 - ((1.0 - target) / (1.0 - initial)) ** (1.0 / events)
    before, after = (1.0 - target + (target - initial) * (1.0 - k / events) ** 3 for k in (event, event + 1))
    return 1.0 - after / before


class IterativePruning(SparseRule):
    """All weights are active at first; at the end of some epochs the smallest of every tensor are removed for good.

    Args:
        sparsity: Final share of zeros in every sparse tensor; a number, or a table from roles or layer names to numbers.
        iterations: Number of pruning events.
        every_epochs: Epochs from one event to the next.
        start_epoch: 0-based epoch at whose end the first event takes place.
        profile: ``exponential`` prunes the same fraction every time, ``cubic`` larger fractions first.
        caps: Largest sparsity of some layers, by role or name; the other layers make up the difference.
        optimizer_state: Whether to ``keep`` momentum and other optimizer state of pruned weights, as published, or to ``reset``
            it to zero.
        **options: Those of :class:`SparseRule`. ``weights_from`` is a checkpoint of the dense run: weights and momentum come from
            it, while learning rate, weight decay and so on are those of this run's configuration. From a sparse run its masks
            come, too, and pruning leads from its sparsity to ``sparsity``. Without it the network is pruned while it is trained
            from scratch.
    """

    moves: ClassVar[bool] = True
    momentum_from_weights: ClassVar[bool] = True

    def __init__(
        self,
        *,
        sparsity: Sparsity,
        iterations: PositiveInt,
        every_epochs: PositiveInt = 2,
        start_epoch: NonNegativeInt = 0,
        profile: Profile = "exponential",
        caps: Mapping[str, Share] | None = None,
        optimizer_state: Literal["keep", "reset"] = "keep",
        **options: Unpack[SparseOptions],
    ) -> None:
        super().__init__(**options)
        self.target = sparsity
        self.iterations = iterations
        self.every_epochs = every_epochs
        self.start_epoch = start_epoch
        self.profile: Profile = profile
        self.caps = dict(caps or {})
        self.optimizer_state = optimizer_state
        self.epoch: int | None = None
        self.initial: list[float] | None = None
        """The sparsity of every layer at the start, if that came from a sparse run."""

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register the masks, all of them ones. Raises ``ConfigError`` if the run is too short for all events."""
        last = self.last_event
        if last >= context.total_epochs:
            description = f"{context.total_epochs} epochs"
            allowed = f"more than {last}: the last of {self.iterations} prunes is at the end of 0-based epoch {last}"
            raise ConfigError([Problem("trainer.duration", description, allowed, f"trainer.duration={last + 1}ep")])
        refuse_unknown([(f"{KEY}.caps", self.caps)], weight_layers(model))
        super().attach(model, context)
        self.targets = self._targets(self.weights.layers)
        self._refuse_empty_layers()

    def _refuse_empty_layers(self) -> None:
        """Raise ``ConfigError`` if the last event would leave a layer without an active unit."""
        empty = []
        for name, size, target in zip(self.weights.names, self.weights.layout.sizes, self.targets):
            left = size if target < 1 else 0  # caps of other layers may leave less than nothing
            for number in range(self.iterations if left else 0):
                left -= fraction_count(event_fraction(self.profile, target, number, self.iterations), left)
            if left == 0:
                empty.append(name)
        if empty:
            self.starts_empty(empty)

    def _targets(self, layers: Sequence[WeightLayer]) -> list[float]:
        """Return the final sparsity of every layer, with ``caps`` applied."""
        targets = [value_for(layer, self.target) for layer in layers]
        caps = [next((cap for name, cap in self.caps.items() if layer.matches(name)), None) for layer in layers]
        sizes = Layout.of([tuple(weight.shape) for weight in self.weights.weights], self.granularity).sizes
        return capped(targets, caps, sizes)

    def refuse_masks(self, file: str, key: str) -> None:
        if key != f"{KEY}.weights_from":
            description = f"{file} is sparse, and pruning would make all of its weights active"
            raise ConfigError([Problem(key, description, "its masks as well as its weights", f"{KEY}.weights_from={file}")])

    def take_masks(self, state: Mapping[str, Any], key: str) -> None:
        """Start with the masks of a sparse network. Layers without one stay dense.

        Raises ``ConfigError`` if its masks cover smaller units.
        """
        saved, masks = saved_masks(state["algorithm"]), []
        for name, masking, weight in zip(self.weights.names, self.weights.maskings, self.weights.weights):
            own, mask = masking.mask, saved.get(name)
            if mask is None:
                masks.append(torch.ones_like(own))
            elif mask.shape[: own.dim()] == own.shape:
                share = mask.flatten(own.dim()).mean(dim=-1) if mask.dim() > own.dim() else mask
                if not torch.equal(share, (share > 0).to(share)):
                    description = f"{self.granularity} with a run whose masks cover smaller units, in {name}"
                    fix = f"{KEY}.granularity={mask.dim()}"
                    raise ConfigError([Problem(f"{KEY}.granularity", description, "that of the other run", fix)])
                masks.append(share)
            elif own.shape[: mask.dim()] == mask.shape:
                masks.append(full_mask(mask, own).expand_as(own))
            else:
                description = f"the mask of {name} has shape {list(mask.shape)}"
                raise ConfigError([Problem(key, description, f"the same model, weight {list(weight.shape)}")])
        self.weights.mask.copy_(torch.cat([mask.reshape(-1) for mask in masks]))
        self.weights.recount()
        self.record = MovementRecord(self.weights.mask)
        self.initial = [1.0 - active / size for active, size in zip(self.weights.active, self.weights.layout.sizes)]

    @property
    def last_event(self) -> int:
        """The 0-based epoch at whose end the final sparsity is reached."""
        return self.start_epoch + self.every_epochs * (self.iterations - 1)

    def event(self, epoch: int) -> int | None:
        """Return the 0-based number of the event at the end of 0-based ``epoch``, or None if there is none."""
        number, rest = divmod(epoch - self.start_epoch, self.every_epochs)
        return number if rest == 0 and 0 <= number < self.iterations else None

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Prune if an event is due. Returns the metrics of sparse rules and ``complete``, 1 from the last event on, else 0."""
        self.epoch = epoch
        number = self.event(epoch)
        if number is not None:
            self._prune(number)
        return {**super().epoch_end(epoch), "complete": torch.tensor(float(self.complete))}

    def _prune(self, number: int) -> None:
        weights = self.weights
        initial = self.initial or [0.0] * len(self.targets)
        fractions = [
            event_fraction(self.profile, target, number, self.iterations, start) for target, start in zip(self.targets, initial)
        ]
        pruned = smallest_active(weights, fractions)
        if self.initial is not None:  # a layer that started at its target or beyond loses nothing
            parts = pruned.split(weights.counts(pruned))
            pruned = torch.cat([part for part, fraction in zip(parts, fractions) if fraction > 0] or [pruned[:0]])
        lost = weights.counts(pruned)
        weights.switch(pruned, False)
        weights.active = [before - count for before, count in zip(weights.active, lost)]
        keep = [masking.broadcast() for masking in weights.maskings]
        for weight, mask in zip(weights.weights, keep):
            weight.mul_(mask)
        if self.optimizer_state == "reset":
            reset_inactive_state(weights.weights, keep, self.optimizers)

    @property
    def complete(self) -> bool:
        """Whether the last event is over. Before it the network has more weights than the run ends with."""
        return self.epoch is not None and self.epoch >= self.last_event

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **({} if self.initial is None else {"initial": self.initial})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.initial = state.get("initial")

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        yield from sparsity_problems(f"{KEY}.caps", config.get("caps") or {})
        for name, least in (("iterations", 1), ("every_epochs", 1), ("start_epoch", 0)):
            value = config.get(name, least)
            if isinstance(value, int) and value < least:
                yield Problem(f"{KEY}.{name}", str(value), f"a whole number of at least {least}", f"{KEY}.{name}={least}")
