"""Delayed gradients (DDG): every module learns from the gradient of a batch seen a few iterations ago.

Huo, Gu, Yang and Huang (2018), *Decoupled Parallel Backpropagation with Convergence Guarantee*, arXiv 1804.10574.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from altprop.algorithms.base import Algorithm, Loss, top1
from altprop.algorithms.blocks import cut, cut_problems
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.replaying import frozen_statistics, is_random, random_state, random_state_of
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem

Semantics = Literal["stale", "current", "replay"]


def repeat_to(inputs: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A mini-batch shorter than ``size`` filled up by repeating its own samples from the first one on."""
    if targets.shape[0] >= size:
        return inputs, targets
    chosen = torch.arange(size, device=targets.device) % targets.shape[0]
    return inputs[chosen], targets[chosen]


@dataclass
class Pass:
    """One forward pass of a module that waits for its gradient.

    ``weights`` are the parameter values it was made with, ``masks`` the state of a weights rule at that time, ``leaves`` what its
    graph refers to, ``random`` the state of the random generator before it, for modules with dropout. ``outputs`` is None where
    the pass will be replayed.
    """

    inputs: Tensor
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    leaves: dict[str, Tensor]
    outputs: Tensor | None
    random: Tensor | None


class DelayedGradients(Algorithm):
    """K modules, each a block of the model (the last one with the classifier) and an optimizer of its own; no local heads.

    Module k has the delay ``d_k = K - k``. In iteration t it makes its forward pass of batch t, then back-propagates the gradient
    that module k+1 sent in iteration t-1, which belongs to batch ``t - d_k``, through the pass it kept, updates, and sends the
    gradient of that pass's input to module k-1. It makes no update while ``t < d_k``. What the backward pass uses:

    - ``stale``: activations and weights of iteration ``t - d_k``, the published algorithm;
    - ``current``: activations of ``t - d_k``, but weights of t where gradients pass to earlier layers of the module, as the
      public code did;
    - ``replay``: the input of ``t - d_k`` passed forward again with the weights of t (features replay, Huo et al., 2018).

    ``pad_batches`` fills up a short last mini-batch by repeating its first samples.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(clip=True, needs_blocks=True)

    def __init__(
        self,
        *,
        semantics: Semantics = "stale",
        pad_batches: bool = False,
        block_size: int = 1,
        cut_points: Sequence[int] | None = None,
        loss: Loss | None = None,
        weights: WeightsRule | None = None,
        estimator: object | None = None,
    ) -> None:
        super().__init__(loss=loss, weights=weights, estimator=estimator)
        self.semantics = semantics
        self.pad_batches = pad_batches
        self.block_size = block_size
        self.cut_points = cut_points

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        blocks = cut(self.model, self.block_size, self.cut_points)
        assert isinstance(self.model, FeedForward)
        self.modules: list[nn.Module] = [*blocks[:-1], nn.Sequential(blocks[-1], self.model.head)]
        for number, module in enumerate(self.modules, start=1):
            if not any(True for _ in module.parameters()):
                given = f"block {number} has no parameters"
                raise ConfigError([Problem("algorithm.cut_points", given, "every block needs layers to train")])
        self.waiting: list[list[Pass]] = [[] for _ in self.modules]
        self.pending: list[Tensor | None] = [None for _ in self.modules]
        self.draws = [is_random(module) for module in self.modules]
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
        return {"loss": loss.detach(), "accuracy": top1(scores, targets)}

    def _forward(self, index: int, module: nn.Module, features: Tensor) -> Tensor:
        """Pass ``features`` through and keep what the delayed backward pass needs; returns the output without a graph."""
        leaf = features.detach()
        random = random_state(self.context.device) if self.draws[index] else None
        if self.semantics == "replay":
            with torch.no_grad():
                outputs = module(leaf)
            self.waiting[index].append(Pass(leaf, {}, {}, {}, None, random))
            return outputs
        weights = {name: value.detach().clone() for name, value in module.named_parameters()}
        masks = {name: value.clone() for name, value in module.named_buffers() if "parametrizations" in name}
        kept = self._record(index, module, leaf, weights, masks, random)
        self.waiting[index].append(kept)
        assert kept.outputs is not None
        return kept.outputs.detach()

    def _record(
        self,
        index: int,
        module: nn.Module,
        inputs: Tensor,
        weights: dict[str, Tensor],
        masks: dict[str, Tensor],
        random: Tensor | None,
    ) -> Pass:
        """A forward pass whose graph refers to copies of the weights (stale) or to their memory (current)."""
        if self.semantics == "stale":
            leaves = {name: value.requires_grad_() for name, value in weights.items()}
        else:
            # .data shares the memory but not the version counter: an update in place changes what the graph will read, unnoticed
            leaves = {name: value.data.requires_grad_() for name, value in module.named_parameters()}
        inputs = inputs.requires_grad_(index > 0)
        outputs = functional_call(module, {**leaves, **masks}, (inputs,))
        return Pass(inputs, weights, masks, leaves, outputs, random)

    def _backward(self, index: int) -> Tensor | None:
        """Use the gradient that arrived, if there is one; returns the gradient to send down."""
        gradient = self.pending[index]
        if gradient is None:
            return None
        module, optimization = self.modules[index], self.optimizers[index]
        optimization.zero_grad()
        oldest = self.waiting[index].pop(0)
        if self.semantics == "replay":
            inputs = oldest.inputs.requires_grad_(index > 0)
            with frozen_statistics(module), random_state_of(oldest.random, self.context.device):
                module(inputs).backward(gradient)
            received = inputs.grad
        else:
            assert oldest.outputs is not None
            oldest.outputs.backward(gradient)
            for name, parameter in module.named_parameters():
                parameter.grad = oldest.leaves[name].grad
            received = oldest.inputs.grad
        optimization.step()
        return received

    @property
    def step_kind(self) -> str:
        """In the first steps nothing has come down to the lower modules; later each goes back through the batch of its delay."""
        backward = zip(self.waiting, self.pending, strict=True)
        return f"step back through {[0 if gradient is None else kept[0].inputs.shape[0] for kept, gradient in backward]}"

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        waiting = [
            [
                {"inputs": kept.inputs.detach(), "weights": _values(kept.weights), "masks": kept.masks, "random": kept.random}
                for kept in passes
            ]
            for passes in self.waiting
        ]
        return {**super().state_dict(), "waiting": waiting, "pending": list(self.pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A graph cannot be saved; each is made again from its input and the weights of its time."""
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
        now = {name: value.detach().clone() for name, value in module.named_parameters()}
        module.train()
        with frozen_statistics(module), random_state_of(random, self.context.device):
            _write(module, weights)
            restored = self._record(index, module, inputs, weights, masks, random)
            _write(module, now)
        return restored

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of cutting."""
        yield from cut_problems(config)


def _values(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}


def _copy(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, copy=True)


def _write(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put ``values`` into the memory of the parameters, unseen by graphs that refer to it."""
    for name, parameter in module.named_parameters():
        parameter.data.copy_(values[name].detach())
