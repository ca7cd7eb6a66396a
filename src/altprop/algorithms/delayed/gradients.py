"""Delayed gradients (DDG): every module learns from the gradient of a mini-batch from a few iterations ago.

Huo, Gu, Yang and Huang (2018), *Decoupled Parallel Backpropagation with Convergence Guarantee*, arXiv 1804.10574.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from altprop.algorithms.blocks import BlockAlgorithm, BlockOptions
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.replaying import frozen_statistics, is_random, random_state, random_state_of
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem

SPECTRAL = ("._u", "._v")
"""Ends of the names of the vectors of a spectral norm, which every pass in training mode changes."""
Semantics = Literal["stale", "current", "replay"]


def repeat_to(inputs: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Fill up a mini-batch to ``size`` samples by repeating its own samples, starting with the first."""
    if targets.shape[0] >= size:
        return inputs, targets
    indices = torch.arange(size, device=targets.device) % targets.shape[0]
    return inputs[indices], targets[indices]


@dataclass
class Pass:
    """A forward pass of a module that waits for its gradient."""

    inputs: Tensor
    weights: dict[str, Tensor]
    """Values of the parameters in this pass."""
    masks: dict[str, Tensor]
    """State of the weights rule in this pass."""
    leaves: dict[str, Tensor]
    """Leaves of the graph, by name of parameter."""
    outputs: Tensor | None
    """None if the pass will be replayed."""
    random: Tensor | None
    """State of the random generator before this pass, for modules with dropout."""


class DelayedGradients(BlockAlgorithm):
    """Trains K modules with delayed gradients. Each is a block of the model with its own optimizer; there are no local heads.

    The last module includes the classifier. Module k has the delay ``d_k = K - k``. In iteration t it makes the forward pass of
    batch t. Then it backpropagates the gradient that module k+1 sent in iteration t-1 through the stored pass of the batch that
    it belongs to, ``t - d_k``, updates its parameters, and sends the gradient of that pass's input to module k-1. It makes no
    update while ``t < d_k``. The semantics differ in the backward pass:

    - ``stale``: activations and weights of iteration ``t - d_k``, the published algorithm;
    - ``current``: activations of ``t - d_k``, but the weights of t for gradients of earlier layers of the module, as in the
      public code;
    - ``replay``: the input of ``t - d_k`` passed forward again with the weights of t (features replay, Huo et al., 2018).

    Args:
        semantics: See above.
        pad_batches: Whether to fill up a short last mini-batch by repeating its first samples.
        options: Arguments of :class:`~altprop.algorithms.blocks.BlockAlgorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(clip=True, needs_blocks=True)

    def __init__(self, *, semantics: Semantics = "stale", pad_batches: bool = False, **options: Unpack[BlockOptions]) -> None:
        super().__init__(**options)
        self.semantics = semantics
        self.pad_batches = pad_batches

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        blocks = self.cut(self.model)
        assert isinstance(self.model, FeedForward)
        self.modules: list[nn.Module] = [*blocks[:-1], nn.Sequential(blocks[-1], self.model.head)]
        for number, module in enumerate(self.modules, start=1):
            if not any(True for _ in module.parameters()):
                description = f"block {number} has no parameters"
                raise ConfigError([Problem("algorithm.cut_points", description, "every block needs layers to train")])
        self.waiting: list[list[Pass]] = [[] for _ in self.modules]
        self.pending: list[Tensor | None] = [None for _ in self.modules]
        self.is_random = [is_random(module) for module in self.modules]
        return [self.optimizer_step(module.parameters(), optimizer, schedule) for module in self.modules]

    # -- training --------------------------------------------------------------------------------------------------------------

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.pad_batches:
            inputs, targets = repeat_to(inputs, targets, self.context.batch_size)
        features = inputs
        for index, module in enumerate(self.modules[:-1]):
            features = self._forward(index, module, features)
        sent: list[Tensor | None] = [None for _ in self.modules]
        last = self.optimizers[-1]
        last.zero_grad()
        if len(self.modules) > 1:
            features.requires_grad_()
        scores = self.modules[-1](features)
        loss = self.loss(scores, targets)
        loss.backward()
        sent[-1] = features.grad
        last.step()
        for index in range(len(self.modules) - 1):
            sent[index] = self._backward(index)
        self.pending = [*sent[1:], None]
        return {"loss": loss.detach(), **self.measured(scores, targets)}

    def _forward(self, index: int, module: nn.Module, features: Tensor) -> Tensor:
        """Make a forward pass, store what the delayed backward pass needs, and return the output without a graph."""
        leaf = features.detach()
        random = random_state(self.context.device) if self.is_random[index] else None
        if self.semantics == "replay":
            with torch.no_grad():
                outputs = module(leaf)
            self.waiting[index].append(Pass(leaf, {}, {}, {}, None, random))
            return outputs
        weights = {name: value.detach().clone() for name, value in module.named_parameters()}
        masks = {name: value.clone() for name, value in module.named_buffers() if "parametrizations" in name}
        record = self._record(index, module, leaf, weights, masks, random)
        for name, value in masks.items():
            if name.endswith(SPECTRAL):  # the pass has changed the copies of a spectral norm's vectors
                module.get_buffer(name).copy_(value)
        self.waiting[index].append(record)
        assert record.outputs is not None
        return record.outputs.detach()

    def _record(
        self,
        index: int,
        module: nn.Module,
        inputs: Tensor,
        weights: dict[str, Tensor],
        masks: dict[str, Tensor],
        random: Tensor | None,
    ) -> Pass:
        """Make a forward pass whose graph refers to copies of the weights (stale) or to their memory (current)."""
        trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        if self.semantics == "stale":
            leaves = {name: value.requires_grad_(trained[name]) for name, value in weights.items()}
        else:
            # .data shares the memory but not the version counter, so autograd does not notice that updates change what it reads
            leaves = {name: value.data.requires_grad_(trained[name]) for name, value in module.named_parameters()}
        inputs = inputs.requires_grad_(index > 0)
        outputs = functional_call(module, {**leaves, **masks}, (inputs,))
        return Pass(inputs, weights, masks, leaves, outputs, random)

    def _backward(self, index: int) -> Tensor | None:
        """Use the gradient that has arrived, if any. Returns the gradient to send to the module before."""
        gradient = self.pending[index]
        if gradient is None:
            return None
        module, optimization = self.modules[index], self.optimizers[index]
        optimization.zero_grad()
        oldest = self.waiting[index].pop(0)
        if self.semantics == "replay":
            inputs = oldest.inputs.requires_grad_(index > 0)
            with frozen_statistics(module), random_state_of(oldest.random, self.context.device):
                outputs = module(inputs)
                if outputs.requires_grad:  # unless the whole first module is frozen
                    outputs.backward(gradient)
            received = inputs.grad
        else:
            assert oldest.outputs is not None
            if oldest.outputs.requires_grad:
                oldest.outputs.backward(gradient)
            for name, parameter in module.named_parameters():
                parameter.grad = oldest.leaves[name].grad
            received = oldest.inputs.grad
        optimization.step()
        return received

    @property
    def step_kind(self) -> str:
        """Depends on the batch sizes of the backward passes. In the first steps the lower modules make none."""
        backward = zip(self.waiting, self.pending, strict=True)
        sizes = [0 if gradient is None else passes[0].inputs.shape[0] for passes, gradient in backward]
        return f"step back through {sizes}"

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        waiting = [
            [
                {"inputs": item.inputs.detach(), "weights": _values(item.weights), "masks": item.masks, "random": item.random}
                for item in passes
            ]
            for passes in self.waiting
        ]
        return {**super().state_dict(), "waiting": waiting, "pending": list(self.pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state. Graphs cannot be saved, so each is recomputed from its input and the weights of its pass."""
        super().load_state_dict(state)
        self.pending = [_copy(gradient, self.context.device) for gradient in state["pending"]]
        self.waiting = [
            [self._restore(index, module, saved) for saved in state["waiting"][index]]
            for index, module in enumerate(self.modules)
        ]

    def _restore(self, index: int, module: nn.Module, saved: Mapping[str, Any]) -> Pass:
        inputs = saved["inputs"].to(self.context.device, copy=True)
        random = saved["random"]
        if self.semantics == "replay":
            return Pass(inputs, {}, {}, {}, None, random)
        weights, masks = (
            {name: value.to(inputs.device, copy=True) for name, value in saved[key].items()} for key in ("weights", "masks")
        )
        current = {name: value.detach().clone() for name, value in module.named_parameters()}
        module.train()
        with frozen_statistics(module), random_state_of(random, self.context.device):
            _write(module, weights)
            restored = self._record(index, module, inputs, weights, masks, random)
            _write(module, current)
        return restored


def _values(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}


def _copy(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, copy=True)


def _write(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write ``values`` into the memory of the parameters, unnoticed by graphs that refer to it."""
    for name, parameter in module.named_parameters():
        parameter.data.copy_(values[name].detach())
