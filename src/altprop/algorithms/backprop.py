"""End-to-end backpropagation: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule


def smallest_slice(model: nn.Module) -> int:
    """The fewest images that ``model`` can be trained on: batch norm cannot normalize a single one."""
    return 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1


class Backprop(Algorithm):
    """Minimizes one loss at the output by a backward pass through the whole network, with one optimizer over all parameters."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        amp=True, compile=True, ddp=True, accumulate=True, clip=True, cuda_graph=True
    )

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.forward = torch.compile(self.model) if self.context.compile else self.model
        self.optimization = self.optimizer_step(self.model.parameters(), optimizer, schedule)
        self.smallest_slice = smallest_slice(self.model)
        return [self.optimization]

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.optimization.zero_grad()
        if self.context.accumulate == 1:
            metrics = self._backward(inputs, targets, 1.0)
        else:
            metrics = self._backward_in_slices(inputs, targets)
        self.optimization.step()
        return metrics

    def _backward(self, inputs: Tensor, targets: Tensor, share: float) -> dict[str, Tensor]:
        """Add the gradients of ``share`` times the mean loss to ``.grad`` and return the metrics."""
        with self.optimization.autocast():
            scores = self.forward(inputs)
            loss = self.loss(scores, targets)
        self.optimization.backward(loss if share == 1.0 else loss * share)
        return {"loss": loss.detach(), **self.measured(scores, targets)}

    def _backward_in_slices(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Accumulate the gradient of a mini-batch that does not fit into memory from slices.

        Batch norm normalizes each slice by itself, so a small mini-batch is cut into fewer slices for it.
        """
        totals: dict[str, Tensor] = {}
        count = targets.shape[0]
        slices = max(1, min(self.context.accumulate, count // self.smallest_slice))
        for some_inputs, some_targets in zip(inputs.tensor_split(slices), targets.tensor_split(slices), strict=True):
            share = some_targets.shape[0] / count
            for name, value in self._backward(some_inputs, some_targets, share).items():
                totals[name] = totals[name] + value * share if name in totals else value * share
        return totals
