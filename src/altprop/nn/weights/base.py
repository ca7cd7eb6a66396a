"""The contract of a weights rule: what the weights may be and how that changes over training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from altprop.nn.weights.layers import WeightLayer

KEY = "algorithm.weights"
"""Configuration key of the weights rule, for messages."""


@dataclass(frozen=True)
class WeightsContext:
    """What a rule knows about the run: its length in steps and epochs, the device, and a random generator."""

    steps_per_epoch: int
    total_epochs: int
    device: torch.device
    generator: torch.Generator
    """CPU generator that only this rule uses, with the same state on every rank. The algorithm saves its state."""


@dataclass(frozen=True)
class SavedWeights:
    """What the checkpoint of a run says about the weights that its weights rule computed."""

    stored: Mapping[str, Mapping[str, Tensor]]
    """Plain name of a weight, such as ``fc.weight`` -> the tensors below its parametrizations: ``original`` is the stored
    parameter, ``0.mask`` the buffer ``mask`` of the rule's own module. In the order of ``layers``."""
    layers: Mapping[str, WeightLayer]
    """Plain name of a weight -> its layer in the model that the weights are for, in the order of layers."""
    options: Mapping[str, Any]
    """The configuration of the rule in that run."""
    state: Mapping[str, Any]
    """What :meth:`WeightsRule.state_dict` returned there."""

    @property
    def latents(self) -> dict[str, Tensor]:
        """Plain name of a weight -> the stored parameter from which it is computed."""
        return {name: parts["original"] for name, parts in self.stored.items()}


class WeightsRule:
    """Dense weights, and the base of every other rule.

    A rule works through ``torch.nn.utils.parametrize``, so layers keep their classes. The algorithm calls its
    methods in this order: ``attach`` once before the optimizers are built and ``optimizers_built`` once after; ``epoch_start``
    and ``epoch_end`` in every epoch; ``step_start``, ``observe``, ``adjust_gradients`` (once per optimizer, between the backward
    pass and the update) and ``step_end`` in every step.
    """

    moves: ClassVar[bool] = False
    """Whether the rule changes weights other than through their gradients, in all layers, as moving structure and layers that
    become binary do."""

    cuda_graph: ClassVar[bool] = False
    """Whether the rule may be part of a CUDA graph: its parametrizations and ``adjust_gradients`` do the same on the host in
    every step. Its other methods run outside the graph, and change tensors only in place."""

    left_out: Mapping[str, int] = MappingProxyType({})
    """Names and sizes of the model's weights to which the rule cannot be applied; set by :meth:`attach`."""

    @property
    def initial_stream(self) -> str:
        """Name of the random stream from which the model's initial weights are drawn, before :meth:`attach`."""
        return "init"

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register the rule's parametrizations on ``model``."""

    def optimizers_built(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Called once after the algorithm built its optimizers. A rule that changes their state outside of a step stores them."""

    def epoch_start(self, epoch: int) -> None:
        """Called before the first step of ``epoch`` (0-based). Must be idempotent, since a resumed epoch calls it again."""

    def step_start(self, step: int) -> None:
        """Called before step ``step`` (0-based, counted over all epochs)."""

    def observe(self, inputs: Tensor) -> None:
        """Called with the mini-batch ``inputs`` of the current step, before its update."""

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Change ``.grad`` of ``parameters`` in place, for penalties and noise. Must not synchronize with the host."""

    def step_end(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Called after the update of step ``step``, to move weights and adjust the optimizer state that belongs to them."""

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Called after the last step of ``epoch`` and before evaluation. Returns metrics as device scalars."""
        return {}

    @property
    def complete(self) -> bool:
        """Whether the weights have reached the form that the run ends with. Only then may a checkpoint be the best one."""
        return True

    # -- weights of other runs -------------------------------------------------------------------------------------------------

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return the weights that a network under this rule computed with, by plain name, from a checkpoint of its run.

        Another run may start from them (``model.weights_from``). The default raises ``NotImplementedError``, which refuses that.
        """
        raise NotImplementedError

    @property
    def has_saved_mask(self) -> bool:
        """Whether this rule takes a mask from a checkpoint, which then decides what is active in weights from another one."""
        return False

    def refuse_masks(self, file: str, key: str) -> None:
        """Raise ``ConfigError`` if this rule cannot start from the sparse weights in ``file``, which ``key`` names."""

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs in addition to the model's parameters and buffers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


class Dense(WeightsRule):
    """Ordinary weights: the rule that does nothing."""

    cuda_graph: ClassVar[bool] = True
