"""Hard units: thresholds and staircases whose backward pass is an estimator's.

The outputs are exact levels: the forward pass is :meth:`Levels.quantize` alone, never a smooth value corrected by its own
detached error, which rounding would leave slightly off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from altprop.names import builds
from altprop.nn.estimators.base import Estimator
from altprop.nn.units.base import HardUnit
from altprop.nn.units.compact import record
from altprop.nn.units.levels import Kind, Levels


class ReplacedDerivative(torch.autograd.Function):
    """``levels.quantize`` forward, ``estimator.gradient`` backward; keeps only what the estimator asks to remember."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, levels: Levels, estimator: Estimator | None) -> Tensor:
        ctx.levels = levels
        ctx.estimator = estimator
        outputs = levels.quantize(inputs)
        if estimator is not None and ctx.needs_input_grad[0]:
            remembered = estimator.remember(inputs, levels)
            if remembered is not None:
                ctx.save_for_backward(remembered)
            record(outputs, inputs if remembered is inputs else None, levels)
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        if ctx.estimator is None:
            raise RuntimeError(
                "a gradient was asked of a hard unit that has no estimator: train it with algorithm=target_propagation, "
                "or give the algorithm one, as in algorithm/estimator=soft_hinge"
            )
        remembered = ctx.saved_tensors[0] if ctx.saved_tensors else None
        return ctx.estimator.gradient(upstream[0], remembered, ctx.levels), None, None


class LeveledUnit(HardUnit):
    """A hard unit with the given levels; ``estimator`` must be an :class:`~altprop.nn.estimators.base.Estimator` or None."""

    estimator: Estimator | None

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, inputs: Tensor) -> Tensor:
        """The levels of ``inputs``, any shape; the type is kept."""
        outputs: Tensor = ReplacedDerivative.apply(inputs, self.levels, self.estimator)
        return outputs

    def extra_repr(self) -> str:
        return f"steps={self.levels.steps}, low={self.levels.low:g}, high={self.levels.high:g}"


class SignStep(LeveledUnit):
    """+1 above 0, else -1."""

    def __init__(self) -> None:
        super().__init__(Levels("sign", low=-1.0, high=1.0))


class BinaryStep(LeveledUnit):
    """1 above 0, else 0."""

    def __init__(self) -> None:
        super().__init__(Levels("binary"))


class Staircase(LeveledUnit):
    """A quantized ReLU: ``steps`` rises from ``low`` to ``high``, at equal distances between those inputs.

    Raises ``ValueError`` for fewer than 2 steps, or unless ``low < high``.
    """

    def __init__(self, steps: int = 5, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(Levels("staircase", steps, low, high))


class SummedStaircase(LeveledUnit):
    """The outputs of :class:`Staircase` as a sum of binary steps, each with its own estimated derivative.

    Raises ``ValueError`` for fewer than 2 steps, or unless ``low < high``.
    """

    def __init__(self, steps: int = 5, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(Levels("summed_staircase", steps, low, high))


UNIT_KINDS: dict[type[LeveledUnit], Kind] = {
    SignStep: "sign",
    BinaryStep: "binary",
    Staircase: "staircase",
    SummedStaircase: "summed_staircase",
}


def kind_of(node: Any) -> Kind | None:
    """The kind of hard unit that a configured node builds; None for anything else."""
    return next((kind for unit, kind in UNIT_KINDS.items() if builds(node, unit)), None)
