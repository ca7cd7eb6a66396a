"""Training in half precision as published before autocast: half parameters, updated through fp32 copies of them.

Belilovsky et al. (2020), ImageNet rows (specification, section 2.7): everything in half precision but batch norms, the loss of
half scores, momentum and weight decay on the fp32 copies ("masters").
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
    """Parameters and buffers of ``module`` in half precision, in place, and those of batch norms back in fp32."""
    module.half()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.float()


def with_half_inputs(layer: nn.Module) -> None:
    """Whatever is handed to ``layer`` arrives in half precision: training, frozen blocks and evaluation alike."""
    layer.register_forward_pre_hook(_half_arguments)


def _half_arguments(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(argument.half() for argument in arguments)


class MasterWeightsStep(OptimizerStep):
    """Optimizes fp32 copies of half parameters (parameters in fp32 directly) and writes the result back.

    Gradients are copied to fp32 before they are divided by the loss scale; an overflow skips the update as ever.
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
        super().backward(loss.float())  # times a large scale, a half number would be infinite

    def step(self, *, advance_schedule: bool = True) -> None:
        for value, master in self.copies:
            master.grad = None if value.grad is None else value.grad.float()
        super().step(advance_schedule=advance_schedule)
        with torch.no_grad():
            for value, master in self.copies:
                value.copy_(master)

    def forget(self) -> None:
        """As if the wrapper had been built anew: the fp32 copies, too, are made from the halves again."""
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
    """The optimizer step of one block: with masters where parameters are in half precision."""
    parameters = list(parameters)
    kind = MasterWeightsStep if any(map(is_half, parameters)) else OptimizerStep
    return kind(parameters, optimizer, schedule, weights, context, loss_scaling)


def master_weights_problems(config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    """What does not go with half parameters."""
    key, off = "algorithm.master_weights", "algorithm.master_weights=false"
    trainer = root.get("trainer") or {}
    if trainer.get("precision", "fp32") != "fp16":
        given = f"true with trainer.precision={trainer.get('precision', 'fp32')}"
        yield Problem(key, given, "copies are kept of fp16 parameters only", "trainer.precision=fp16")
    rule = class_of(config.get("weights")) or Dense
    if not issubclass(rule, Dense):
        yield Problem(key, f"true with {rule.__name__} weights", "rules act on the weights that are trained", off)
    if trainer.get("probe_every") is not None:
        yield Problem(key, "true with trainer.probe_every", "the probe compares gradients in fp32", off)
