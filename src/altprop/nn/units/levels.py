"""What hard units compute: the levels of thresholds and staircases, as pure functions and as a value.

Every function takes the lower level at a threshold (strict inequality), so ``sign_step(0) == -1`` for both zeros, and returns
exact levels. The derivative of all of them is zero almost everywhere.

The last operation of each is out of place: torch.compile of PyTorch 2.11 drops the gradient of an ``autograd.Function`` whose
output was written in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["sign", "binary", "staircase", "summed_staircase"]

_LOW_PRECISION = (torch.bfloat16, torch.float16)


def full_precision(values: Tensor) -> Tensor:
    """Return ``values`` in float32 if they are in half precision, else unchanged."""
    # A product rounded to half precision may end up on the other side of a threshold.
    return values.float() if values.dtype in _LOW_PRECISION else values


def sign_step(inputs: Tensor) -> Tensor:
    """Return +1 where ``inputs > 0``, else -1; same shape and type."""
    # Taking the sign twice is several times faster on a CPU than torch.where, whose condition is not vectorized.
    return torch.sign(torch.sign(inputs).sub_(0.5))


def binary_step(inputs: Tensor) -> Tensor:
    """Return 1 where ``inputs > 0``, else 0; same shape and type."""
    return torch.sign(inputs).clamp(min=0)


def staircase(inputs: Tensor, rises: int, low: float, high: float) -> Tensor:
    """Return ``low + (high - low) clip(ceil((rises - 1) u), 0, rises) / rises`` with ``u = (inputs - low) / (high - low)``.

    There are ``rises + 1`` levels; the thresholds are at ``u = i / (rises - 1)``, the last one at ``high``. Same shape and type.
    """
    position = full_precision(inputs) if low == 0 else full_precision(inputs) - low
    count = (position * ((rises - 1) / (high - low))).ceil_().clamp_(0, rises)
    return level_values(count, rises, low, high).to(inputs.dtype)


def summed_staircase(inputs: Tensor, rises: int, low: float, high: float) -> Tensor:
    """Return ``low + (high - low) / rises * sum_i binary_step(inputs - threshold_i)``: the values of :func:`staircase`."""
    count = torch.zeros_like(full_precision(inputs))
    for threshold in thresholds(rises, low, high):
        count += binary_step(full_precision(inputs) - threshold)
    return level_values(count, rises, low, high).to(inputs.dtype)


def thresholds(rises: int, low: float, high: float) -> list[float]:
    """Return the inputs at which a staircase rises: ``rises`` equally spaced values from ``low`` to ``high``, both included."""
    return [low + index * (high - low) / (rises - 1) for index in range(rises)]


def level_values(count: Tensor, rises: int, low: float, high: float) -> Tensor:
    """Return the level after ``count`` rises (0 to ``rises``, floating point; overwritten)."""
    return count / rises if (low, high) == (0, 1) else count.div_(rises).mul_(high - low) + low


@dataclass(frozen=True)
class Levels:
    """The geometry of a hard unit: ``rises`` from level ``low`` to level ``high``.

    ``sign`` and ``binary`` rise once, at 0. The two staircases rise between ``low`` and ``high`` on the input axis too. Their
    outputs are equal, but to an estimator ``staircase`` is one unit and ``summed_staircase`` a sum of ``rises`` binary units.

    Raises ``ValueError`` for a staircase with fewer than 2 rises, or unless ``low < high``.
    """

    kind: Kind
    rises: int = 1
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.kind in ("staircase", "summed_staircase") and self.rises < 2:
            raise ValueError(f"a staircase needs at least 2 steps, not {self.rises}")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")

    def quantize(self, inputs: Tensor) -> Tensor:
        """Return the unit's output for ``inputs`` of any shape."""
        if self.kind == "sign":
            return sign_step(inputs)
        if self.kind == "binary":
            return binary_step(inputs)
        function = staircase if self.kind == "staircase" else summed_staircase
        return function(inputs, self.rises, self.low, self.high)

    def encode(self, outputs: Tensor) -> Tensor:
        """Return the number of rises that led to each of ``outputs``: ``uint8`` if that is wide enough, else ``int32``."""
        share = (full_precision(outputs) - self.low) * (self.rises / (self.high - self.low))
        return share.round_().to(torch.uint8 if self.rises <= 255 else torch.int32)

    def decode(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the outputs that were passed to :meth:`encode`, bit for bit."""
        working = torch.float64 if dtype == torch.float64 else torch.float32
        return level_values(codes.to(working), self.rises, self.low, self.high).to(dtype)

    @property
    def gradient_scale(self) -> float:
        """The factor on the gradient of the unit's output before the estimator's rule is applied.

        A staircase stretches a unit staircase to ``high - low``; a summed one adds up rises of ``(high - low) / rises``. With a
        single threshold the rule itself is the whole replaced derivative.
        """
        if self.kind == "staircase":
            return self.high - self.low
        if self.kind == "summed_staircase":
            return (self.high - self.low) / self.rises
        return 1.0

    def normalized(self, inputs: Tensor) -> Tensor:
        """Return ``u``: 0 where the staircase begins, 1 where it ends."""
        return inputs if (self.low, self.high) == (0, 1) else (inputs - self.low) / (self.high - self.low)

    @property
    def thresholds(self) -> list[float]:
        """The inputs at which the output rises."""
        return [0.0] if self.rises == 1 else thresholds(self.rises, self.low, self.high)
