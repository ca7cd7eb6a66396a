"""The contract of a weights rule: what the weights may be and how that changes over training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsContext:
    """What a rule may know of the run: lengths in steps and epochs, the device, and a generator of its own."""

    steps_per_epoch: int
    total_epochs: int
    device: torch.device
    generator: torch.Generator
    """CPU generator of this rule alone; the same on every rank. Its state is saved by the algorithm."""


class WeightsRule:
    """Dense weights, and the base of every other rule.

    A rule works on ``torch.nn.utils.parametrize``, so layers stay ``nn.Linear`` and ``nn.Conv2d``. The algorithm calls, in order:
    ``attach`` once before the optimizers are built and ``optimizers_built`` after; every epoch ``epoch_start`` and
    ``epoch_end``; every step ``step_start``, ``adjust_gradients`` once per optimizer between backward pass and update, and
    ``step_end``.
    """

    moves: ClassVar[bool] = False
    """Whether the rule changes weights apart from their gradients, in all layers: moving structure, layers that turn binary."""

    @property
    def initial_stream(self) -> str:
        """Name of the random stream of the seed from which the model's initial weights are drawn, before :meth:`attach`."""
        return "init"

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register the rule's parametrizations on ``model``."""

    def optimizers_built(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Called once after the algorithm built its optimizers: a rule that changes their state outside a step keeps them."""

    def epoch_start(self, epoch: int) -> None:
        """Called before the first step of ``epoch`` (0-based); must be idempotent, since a resumed epoch calls it again."""

    def step_start(self, step: int) -> None:
        """Called before step ``step`` (0-based, over all epochs)."""

    def observe(self, inputs: Tensor) -> None:
        """Sees the mini-batch ``inputs`` of the step that has just started, before its update."""

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Change ``.grad`` of ``parameters`` in place: penalties, noise. No host sync."""

    def step_end(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Called after the update of step ``step``: reallocation and the optimizer-state surgery that goes with it."""

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Called after the last step of ``epoch`` and before evaluation; returns metrics as device scalars."""
        return {}

    @property
    def complete(self) -> bool:
        """Whether the weights are by now of the kind that the run ends with: only then may a checkpoint be chosen as the best."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """Everything beyond the model's own parameters and buffers that an exact resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


class Dense(WeightsRule):
    """Ordinary weights: the rule that does nothing."""
