"""Hard units: thresholds and staircases whose backward pass is computed by an estimator.

The outputs are exact levels: the forward pass is :meth:`Levels.quantize` alone, never a smooth value corrected by its own
detached error, which rounding would leave slightly off.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from altprop.nn.estimators.base import Estimator
from altprop.nn.units.base import HardUnit
from altprop.nn.units.compact import record
from altprop.nn.units.levels import Kind, Levels
from altprop.ranges import FiniteFloat


class ReplacedDerivative(torch.autograd.Function):
    """``levels.quantize`` forward, ``estimator.gradient`` backward; saves only what the estimator asks to remember."""

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
                "cannot compute a gradient through a hard unit that has no estimator: train it with "
                "algorithm=target_propagation, or give the algorithm an estimator, as in algorithm/estimator=soft_hinge"
            )
        remembered = ctx.saved_tensors[0] if ctx.saved_tensors else None
        return ctx.estimator.gradient(upstream[0], remembered, ctx.levels), None, None


class LeveledUnit(HardUnit):
    """A hard unit with ``levels``; ``estimator`` must be an :class:`~altprop.nn.estimators.base.Estimator` or None."""

    estimator: Estimator | None

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the levels of ``inputs``, in the same shape and type."""
        outputs: Tensor = ReplacedDerivative.apply(inputs, self.levels, self.estimator)
        return outputs

    def extra_repr(self) -> str:
        return f"steps={self.levels.rises}, low={self.levels.low:g}, high={self.levels.high:g}"


class SignStep(LeveledUnit):
    """+1 above 0, else -1."""

    kind: ClassVar[Kind] = "sign"

    def __init__(self) -> None:
        super().__init__(Levels("sign", low=-1.0, high=1.0))


class BinaryStep(LeveledUnit):
    """1 above 0, else 0."""

    kind: ClassVar[Kind] = "binary"

    def __init__(self) -> None:
        super().__init__(Levels("binary"))


class Staircase(LeveledUnit):
    """A quantized ReLU: rises from ``low`` to ``high`` at ``steps`` equally spaced thresholds between those inputs.

    Raises ``ValueError`` if ``steps`` is below 2, or unless ``low < high``.
    """

    kind: ClassVar[Kind] = "staircase"

    def __init__(self, *, steps: Annotated[int, Ge(2), Le(10_000)] = 5, low: FiniteFloat = 0.0, high: FiniteFloat = 1.0) -> None:
        super().__init__(Levels("staircase", steps, low, high))


class SummedStaircase(LeveledUnit):
    """The same outputs as :class:`Staircase`, as a sum of binary units, each with its own estimated derivative.

    Raises ``ValueError`` if ``steps`` is below 2, or unless ``low < high``.
    """

    kind: ClassVar[Kind] = "summed_staircase"

    def __init__(self, *, steps: Annotated[int, Ge(2), Le(10_000)] = 5, low: FiniteFloat = 0.0, high: FiniteFloat = 1.0) -> None:
        super().__init__(Levels("summed_staircase", steps, low, high))
