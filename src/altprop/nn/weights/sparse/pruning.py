"""Iterative magnitude pruning of a trained dense network (section 2.7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import WeightsContext
from altprop.nn.weights.layers import WeightLayer, refuse_unknown, value_for, weight_layers
from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse.base import KEY, SparseRule, sparsity_problems
from altprop.nn.weights.sparse.distribution import capped
from altprop.nn.weights.sparse.dynamic import reset_inactive_state
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.strategies import smallest_active
from altprop.problems import ConfigError, Problem

Profile = Literal["exponential", "cubic"]


def event_fraction(profile: Profile, target: float, event: int, events: int) -> float:
    """Share of the then active units that event ``event`` (0-based) of ``events`` prunes to reach sparsity ``target`` in the end.

    ``exponential``: ``1 - (1 - S)^(1/n)`` every time. ``cubic`` (Zhu and Gupta): the density after k events is
    ``1 - S + S (1 - k/n)^3``.
    """
    if profile == "exponential":
        return 1.0 - (1.0 - target) ** (1.0 / events)
    before, after = (1.0 - target + target * (1.0 - k / events) ** 3 for k in (event, event + 1))
    return 1.0 - after / before


class IterativePruning(SparseRule):
    """All weights at first; at the end of some epochs the smallest of every tensor are removed for good.

    There are ``iterations`` events, at the end of epoch ``start_epoch`` and every ``every_epochs`` after it, that lead to the
    final ``sparsity`` by ``profile``. ``caps`` are largest sparsities for some layers, by role or name; the others take up the
    difference. ``weights_from`` is a checkpoint of the dense run: weights and momentum come from it, while learning rate, weight
    decay and so on are those of this run's configuration. Without it the network is pruned while it is trained from scratch.
    """

    moves: ClassVar[bool] = True

    def __init__(
        self,
        sparsity: float | Mapping[str, float],
        iterations: int,
        every_epochs: int = 2,
        start_epoch: int = 0,
        profile: Profile = "exponential",
        caps: Mapping[str, float] | None = None,
        optimizer_state: Literal["keep", "reset"] = "keep",
        layers: Sequence[str] = ("conv", "linear"),
        dense: Sequence[str] = ("stem", "shortcut"),
        granularity: int = 4,
        penalty: Penalty | None = None,
        weights_from: str | None = None,
    ) -> None:
        super().__init__(0.0, layers, dense, granularity, "equal", penalty, None, weights_from)
        self.momentum_from_weights = True
        self.target = sparsity
        self.iterations = iterations
        self.every_epochs = every_epochs
        self.start_epoch = start_epoch
        self.profile: Profile = profile
        self.caps = dict(caps or {})
        self.optimizer_state = optimizer_state
        self.epoch: int | None = None

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Raises ``ConfigError`` where the run is too short for all events."""
        last = self.last_event
        if last >= context.total_epochs:
            given = f"{context.total_epochs} epochs"
            allowed = f"more than {last}: the last of {self.iterations} prunes is at the end of 0-based epoch {last}"
            raise ConfigError([Problem("trainer.duration", given, allowed, f"trainer.duration={last + 1}ep")])
        refuse_unknown([(f"{KEY}.caps", self.caps)], weight_layers(model))
        super().attach(model, context)
        self.targets = self._targets(self.weights.layers)

    def _targets(self, layers: Sequence[WeightLayer]) -> list[float]:
        wanted = [value_for(layer, self.target) for layer in layers]
        caps = [next((cap for name, cap in self.caps.items() if layer.matches(name)), None) for layer in layers]
        sizes = Layout.of([tuple(weight.shape) for weight in self.weights.weights], self.granularity).sizes
        return capped(wanted, caps, sizes)

    @property
    def last_event(self) -> int:
        """The 0-based epoch at whose end the final sparsity is reached."""
        return self.start_epoch + self.every_epochs * (self.iterations - 1)

    def event(self, epoch: int) -> int | None:
        """Number of the prune at the end of 0-based ``epoch``, from 0 on, or None."""
        number, rest = divmod(epoch - self.start_epoch, self.every_epochs)
        return number if rest == 0 and 0 <= number < self.iterations else None

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Those of every sparse rule, and ``complete``: 1 from the last event on, 0 before it."""
        self.epoch = epoch
        number = self.event(epoch)
        if number is not None:
            weights = self.weights
            fractions = [event_fraction(self.profile, target, number, self.iterations) for target in self.targets]
            pruned = smallest_active(weights, fractions)
            lost = weights.counts(pruned)
            weights.switch(pruned, False)
            weights.active = [before - count for before, count in zip(weights.active, lost)]
            keep = [masking.broadcast() for masking in weights.maskings]
            for weight, kept in zip(weights.weights, keep):
                weight.mul_(kept)
            if self.optimizer_state == "reset":
                reset_inactive_state(weights.weights, keep, self.optimizers)
        return {**super().epoch_end(epoch), "complete": torch.tensor(float(self.complete))}

    @property
    def complete(self) -> bool:
        """Whether the last event is over: before it the network has more weights than what the run is to give."""
        return self.epoch is not None and self.epoch >= self.last_event

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        yield from sparsity_problems(f"{KEY}.caps", config.get("caps") or {})
        for name, least in (("iterations", 1), ("every_epochs", 1), ("start_epoch", 0)):
            value = config.get(name, least)
            if isinstance(value, int) and value < least:
                yield Problem(f"{KEY}.{name}", str(value), f"a whole number of at least {least}", f"{KEY}.{name}={least}")
