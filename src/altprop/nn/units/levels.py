"""What hard units compute: the levels of thresholds and staircases, as pure functions and as a value.

Every function takes the lower level at a threshold (strict inequality), so ``sign_step(0) == -1`` for both zeros, and returns
exact levels; nothing here is differentiable in a useful way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["sign", "binary", "staircase", "summed_staircase"]

_LOW_PRECISION = (torch.bfloat16, torch.float16)


def full_precision(values: Tensor) -> Tensor:
    """``values`` in float32 where they are in half precision."""
    # A product rounded to half precision may land on the other side of a threshold.
    return values.float() if values.dtype in _LOW_PRECISION else values


def sign_step(inputs: Tensor) -> Tensor:
    """+1 where ``inputs > 0``, else -1; same shape and type."""
    # Twice a sign is several times faster on a CPU than torch.where, whose condition is not vectorized.
    return torch.sign(inputs).sub_(0.5).sign_()


def binary_step(inputs: Tensor) -> Tensor:
    """1 where ``inputs > 0``, else 0; same shape and type."""
    return torch.sign(inputs).clamp_(min=0)


def staircase(inputs: Tensor, steps: int, low: float, high: float) -> Tensor:
    """``low + (high - low) clip(ceil((steps - 1) u), 0, steps) / steps`` with ``u = (inputs - low) / (high - low)``.

    ``steps + 1`` levels; the thresholds lie at ``u = i / (steps - 1)``, the last one at ``high``. Same shape and type.
    """
    position = full_precision(inputs) if low == 0 else full_precision(inputs) - low
    count = (position * ((steps - 1) / (high - low))).ceil_().clamp_(0, steps)
    return level_values(count, steps, low, high).to(inputs.dtype)


def summed_staircase(inputs: Tensor, steps: int, low: float, high: float) -> Tensor:
    """``low + (high - low) / steps * sum_i binary_step(inputs - threshold_i)``: the values of :func:`staircase`."""
    count = torch.zeros_like(full_precision(inputs))
    for threshold in thresholds(steps, low, high):
        count += binary_step(full_precision(inputs) - threshold)
    return level_values(count, steps, low, high).to(inputs.dtype)


def thresholds(steps: int, low: float, high: float) -> list[float]:
    """Where a staircase rises: ``steps`` equal parts from ``low`` to ``high``, both included."""
    return [low + index * (high - low) / (steps - 1) for index in range(steps)]


def level_values(count: Tensor, steps: int, low: float, high: float) -> Tensor:
    """The level reached after ``count`` (0 to ``steps``, floating point, overwritten) rises."""
    values = count.div_(steps)
    return values if (low, high) == (0, 1) else values.mul_(high - low).add_(low)


@dataclass(frozen=True)
class Levels:
    """The geometry of a hard unit: ``steps`` rises from level ``low`` to level ``high``.

    ``sign`` and ``binary`` rise once, at 0. The two staircases rise between ``low`` and ``high`` on the input axis too; they have
    equal outputs, but ``staircase`` is one unit to an estimator, ``summed_staircase`` a sum of ``steps`` binary steps.
    """

    kind: Kind
    steps: int = 1
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.kind in ("staircase", "summed_staircase") and self.steps < 2:
            raise ValueError(f"a staircase needs at least 2 steps, not {self.steps}")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must lie below high ({self.high})")

    def quantize(self, inputs: Tensor) -> Tensor:
        """The unit's output for ``inputs`` of any shape."""
        if self.kind == "sign":
            return sign_step(inputs)
        if self.kind == "binary":
            return binary_step(inputs)
        rise = staircase if self.kind == "staircase" else summed_staircase
        return rise(inputs, self.steps, self.low, self.high)

    def encode(self, outputs: Tensor) -> Tensor:
        """The number of rises behind each of ``outputs``: ``uint8`` where it holds them, else ``int32``."""
        share = (full_precision(outputs) - self.low) * (self.steps / (self.high - self.low))
        return share.round_().to(torch.uint8 if self.steps <= 255 else torch.int32)

    def decode(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The outputs that :meth:`encode` was given, bit for bit."""
        working = torch.float64 if dtype == torch.float64 else torch.float32
        return level_values(codes.to(working), self.steps, self.low, self.high).to(dtype)

    @property
    def rise(self) -> float:
        """By how much the unit multiplies the gradient of its output before the estimator's rule sees it.

        A staircase stretches a unit staircase to ``high - low``; a summed one adds up steps of ``(high - low) / steps``. For a
        single step the rule itself is the whole replaced derivative.
        """
        if self.kind == "staircase":
            return self.high - self.low
        if self.kind == "summed_staircase":
            return (self.high - self.low) / self.steps
        return 1.0

    def normalized(self, inputs: Tensor) -> Tensor:
        """``u``: 0 where the staircase begins, 1 where it ends."""
        return inputs if (self.low, self.high) == (0, 1) else (inputs - self.low) / (self.high - self.low)

    @property
    def thresholds(self) -> list[float]:
        """The inputs at which the output rises."""
        return [0.0] if self.steps == 1 else thresholds(self.steps, self.low, self.high)
