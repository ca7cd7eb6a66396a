"""Training in half precision as published before autocast: parameters are fp16 and updated through fp32 copies.

ImageNet rows of Belilovsky et al. (2020) (specification, section 2.7): everything except batch norms is in half precision, the
loss is computed from fp16 scores, and momentum and weight decay act on the fp32 copies ("masters").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.names import class_of
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.problems import Problem


def to_half(module: nn.Module) -> None:
    """Convert the parameters and buffers of ``module`` to fp16 in place, except those of batch norms."""
    module.half()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.float()


def with_half_inputs(layer: nn.Module) -> None:
    """Convert all inputs of ``layer`` to fp16, in training, in frozen blocks and in evaluation."""
    layer.register_forward_pre_hook(_half_arguments)


def _half_arguments(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(argument.half() for argument in arguments)


class MasterWeightsStep(OptimizerStep):
    """Optimizes fp32 copies of fp16 parameters and writes the result back. Parameters in fp32 are optimized directly.

    Gradients are copied to fp32 before they are divided by the loss scale. As usual, an overflow skips the update.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: OptimizerFactory,
        schedule: Schedule,
        weights: WeightsRule,
        context: Context,
        loss_scaling: LossScaling | None = None,
    ) -> None:
        self.working = list(parameters)
        masters = [nn.Parameter(value.detach().float()) if is_half(value) else value for value in self.working]
        super().__init__(masters, optimizer, schedule, weights, context, loss_scaling)
        self.copies = [(value, master) for value, master in zip(self.working, masters, strict=True) if value is not master]
        self._autocast_dtype = None

    def zero_grad(self) -> None:
        super().zero_grad()
        for value in self.working:
            value.grad = None

    def backward(self, loss: Tensor) -> None:
        super().backward(loss.float())  # an fp16 loss times a large scale would be infinite

    def step(self, *, advance_schedule: bool = True) -> None:
        for value, master in self.copies:
            master.grad = None if value.grad is None else value.grad.float()
        super().step(advance_schedule=advance_schedule)
        with torch.no_grad():
            for value, master in self.copies:
                value.copy_(master)

    def forget(self) -> None:
        """Return to the initial state. The fp32 copies, too, are made again from the fp16 parameters."""
        super().forget()
        with torch.no_grad():
            for value, master in self.copies:
                master.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "masters": [master.detach() for _, master in self.copies]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            for (_, master), saved in zip(self.copies, state["masters"], strict=True):
                master.copy_(saved)


def is_half(value: Tensor) -> bool:
    """Whether ``value`` is in fp16."""
    return value.dtype == torch.float16


def block_optimizer(
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerFactory,
    schedule: Schedule,
    weights: WeightsRule,
    context: Context,
    loss_scaling: LossScaling | None,
) -> OptimizerStep:
    """Return the optimizer step of one block, with fp32 copies if some of its parameters are fp16."""
    parameters = list(parameters)
    kind = MasterWeightsStep if any(map(is_half, parameters)) else OptimizerStep
    return kind(parameters, optimizer, schedule, weights, context, loss_scaling)


def master_weights_problems(config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems of options that cannot be combined with ``master_weights``."""
    key, off = "algorithm.master_weights", "algorithm.master_weights=false"
    trainer = root.get("trainer") or {}
    if trainer.get("precision", "fp32") != "fp16":
        description = f"true with trainer.precision={trainer.get('precision', 'fp32')}"
        yield Problem(key, description, "only fp16 parameters have copies", "trainer.precision=fp16")
    rule = class_of(config.get("weights")) or Dense
    if not issubclass(rule, Dense):
        yield Problem(key, f"true with {rule.__name__} weights", "rules act on the weights that are trained", off)
    if trainer.get("probe_every") is not None:
        yield Problem(key, "true with trainer.probe_every", "the probe compares gradients in fp32", off)
