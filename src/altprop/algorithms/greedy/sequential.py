"""Sequential greedy learning: blocks are trained and then frozen, one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.greedy.local_losses import LocalLosses


class SequentialGreedy(LocalLosses):
    """Trains block n for the length of the run while the blocks below are frozen in evaluation mode.

    A run of E epochs takes K * E passes over the data. Every block has its own schedule over E epochs, and
    ``reset_optimizer_at`` counts within them. Until the last stage, the network's prediction is that of the head in training.
    Frozen blocks run without gradients, and their heads are not evaluated. Weights rules that change weights on their own are
    refused.
    """

    capabilities: ClassVar[Capabilities] = dataclasses.replace(LocalLosses.capabilities, freezes=True)

    stage = 0
    """The 0-based block in training."""

    def total_epochs(self, epochs: int, model: nn.Module) -> int:
        return epochs * len(self.cut(model))

    @property
    def stage_epochs(self) -> int:
        """The number of epochs of each block."""
        return max(1, self.context.total_epochs // len(self.blocks))

    def block_context(self) -> Context:
        return dataclasses.replace(self.context, total_epochs=self.stage_epochs)

    def epoch_start(self, epoch: int) -> None:
        self.stage = min(epoch // self.stage_epochs, self.num_blocks - 1)
        super().epoch_start(epoch)

    def is_reset(self, epoch: int) -> bool:
        return epoch - self.stage * self.stage_epochs in self.reset_optimizer_at

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        features = inputs
        with torch.no_grad(), self.optimizers[self.stage].autocast():
            for block in self.blocks[: self.stage]:
                features = block.eval()(features)
        _, loss, measured = self.train_block(self.stage, features, targets)
        name = f"block{self.stage + 1}"
        return {"loss": loss, **measured, f"{name}/loss": loss, f"{name}/accuracy": measured["accuracy"]}

    def reference_gradient(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        for block in self.blocks[: self.stage]:
            block.eval()  # as in the step
        return super().reference_gradient(inputs, targets)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        self.optimizers[self.stage].schedule.epoch_end()
        return self.weights_epoch_end(epoch)

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        loss = metrics.get("validation/loss", metrics.get("train/loss"))
        if loss is not None:
            self.optimizers[self.stage].schedule.evaluated(loss)

    @property
    def learning_rate(self) -> float:
        return self.optimizers[self.stage].learning_rate

    @property
    def evaluated_blocks(self) -> int:
        return self.stage + 1

    def predict(self, inputs: Tensor) -> Tensor:
        features = inputs
        for block in self.blocks[: self.stage]:
            features = block(features)
        return self.parts[self.stage](features)[1]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "stage": self.stage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.stage = state["stage"]
