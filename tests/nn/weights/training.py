"""Small networks trained under a weights rule through the contract, and access to their masks and weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.models.mlp import MLP
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.base import WeightsRule

SHAPE = (1, 4, 4)
CLASSES = 5


def small_mlp(dtype: torch.dtype = torch.float64) -> MLP:
    torch.manual_seed(0)
    model = MLP(hidden=(12, 8), batch_norm=True, batch_norm_logits=True, units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES)
    return model.to(dtype)


def small_wrn(dtype: torch.dtype = torch.float64) -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(depth=10, width=0.25, units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, *SHAPE, generator=generator, dtype=dtype), torch.randint(CLASSES, (8,), generator=generator)


class Trained:
    """``model`` trained by backprop under ``rule``, by SGD with Nesterov momentum as in section 5.1."""

    def __init__(
        self,
        rule: WeightsRule,
        model: nn.Module,
        *,
        epochs: int = 4,
        steps_per_epoch: int = 5,
        seed: int = 0,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> None:
        settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, **options}
        self.rule, self.model = rule, model
        self.dtype = next(model.parameters()).dtype
        self.algorithm = Backprop(weights=rule)
        self.context = Context(
            steps_per_epoch=steps_per_epoch,
            total_epochs=epochs,
            device=torch.device("cpu"),
            seed=seed,
            input_shape=SHAPE,
            num_classes=CLASSES,
            batch_size=8,
        )
        self.algorithm.setup(model, functools.partial(torch.optim.SGD, **settings), schedule or Schedule(), self.context)
        self.epoch = 0

    def step(self) -> dict[str, Tensor]:
        """Perform one step, and begin and end epochs where due."""
        in_epoch = self.algorithm.step % self.context.steps_per_epoch
        if in_epoch == 0:
            self.algorithm.epoch_start(self.epoch)
        metrics = self.algorithm.train_step(*batch(self.algorithm.step, self.dtype))
        if in_epoch == self.context.steps_per_epoch - 1:
            metrics = {**metrics, **self.algorithm.epoch_end(self.epoch)}
            self.epoch += 1
        return metrics

    def steps(self, count: int) -> Trained:
        for _ in range(count):
            self.step()
        return self

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.algorithm.optimizers[0].optimizer


def stored(model: nn.Module) -> list[nn.Parameter]:
    """Return the dense storage of the parametrized weights, in order."""
    return [parameter for name, parameter in model.named_parameters() if name.endswith("parametrizations.weight.original")]


def masks(model: nn.Module) -> list[Tensor]:
    """Return the masks, broadcast to the weights."""
    buffers = [buffer for name, buffer in model.named_buffers() if name.endswith("parametrizations.weight.0.mask")]
    return [
        mask.reshape(*mask.shape, *(1 for _ in range(weight.dim() - mask.dim()))).expand_as(weight)
        for mask, weight in zip(buffers, stored(model))
    ]


def active(model: nn.Module) -> Sequence[int]:
    """Return the number of active units of every tensor."""
    return [int(buffer.sum()) for name, buffer in model.named_buffers() if name.endswith("parametrizations.weight.0.mask")]
