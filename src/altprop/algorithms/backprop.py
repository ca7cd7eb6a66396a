"""End-to-end backpropagation: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from altprop.algorithms.base import Algorithm, top1
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule


class Backprop(Algorithm):
    """One loss at the output, one backward pass through the whole network, one optimizer over all parameters."""

    capabilities: ClassVar[Capabilities] = Capabilities(amp=True, compile=True, ddp=True, accumulate=True, clip=True)

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.forward = torch.compile(self.model) if self.context.compile else self.model
        self.optimization = self.optimizer_step(self.model.parameters(), optimizer, schedule)
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
        """Accumulate the gradients of ``share`` times the mean loss."""
        with self.optimization.autocast():
            scores = self.forward(inputs)
            loss = self.loss(scores, targets)
        self.optimization.backward(loss if share == 1.0 else loss * share)
        return {"loss": loss.detach(), "accuracy": top1(scores, targets)}

    def _backward_in_slices(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The gradient of the whole mini-batch from slices, for batches that do not fit at once (batch norm sees the slices)."""
        totals: dict[str, Tensor] = {}
        count = targets.shape[0]
        parts = min(self.context.accumulate, count)
        for part_inputs, part_targets in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
            share = part_targets.shape[0] / count
            for name, value in self._backward(part_inputs, part_targets, share).items():
                totals[name] = totals[name] + value * share if name in totals else value * share
        return totals
