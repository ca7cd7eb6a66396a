"""Estimators whose weight is a bump ``gain * (1 - tanh(slope z)^2)``: soft hinge, sigmoids, LeCun's tanh.

The weight is even in ``z``, so these rules amount to backpropagation through a smooth unit, evaluated at the inputs in the hard
network.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from altprop.nn.estimators.base import ALL_KINDS, THRESHOLD_KINDS, Estimator, unit_signs
from altprop.nn.units.levels import Kind, Levels, full_precision
from altprop.ranges import PositiveFloat


class TanhEstimator(Estimator):
    """Layer loss ``offset + (gain / slope) tanh(-slope t z)`` with weight ``gain (1 - tanh(slope z)^2)``."""

    def __init__(self, *, gain: float, slope: float, offset: float, scaled: bool = True) -> None:
        super().__init__(scaled=scaled)
        self.gain = gain
        self.slope = slope
        self.offset = offset

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.offset + (self.gain / self.slope) * torch.tanh(-self.slope * targets * inputs)

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.gain * (1 - torch.tanh(self.slope * inputs).square())

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        """Use ``1 - tanh(x)^2 = 4 s (1 - s)``, ``s = sigmoid(2x)``: two fused passes, three times faster on a CPU."""
        assert remembered is not None
        if levels.kind == "summed_staircase":
            return super().gradient(upstream, remembered, levels)
        wide = full_precision(upstream)
        signal = wide if self.scaled else unit_signs(wide, levels)
        bump = self._doubled_argument(full_precision(remembered), levels).sigmoid_()
        return torch.ops.aten.sigmoid_backward(signal, bump).mul_(4 * self.gain).to(upstream.dtype)

    def _doubled_argument(self, inputs: Tensor, levels: Levels) -> Tensor:
        """Twice the argument of the tanh, in a new tensor: ``2 slope z``, or ``2 slope (2u - 1)`` for a staircase."""
        if levels.kind != "staircase":
            return inputs * (2 * self.slope)
        scale = 4 * self.slope / (levels.high - levels.low)
        return (inputs * scale).sub_(2 * self.slope + scale * levels.low)


class SoftHinge(TanhEstimator):
    """The paper's layer loss ``tanh(-t z) + 1`` with weight ``1 - tanh(z)^2``, for binary units too (no factor 1/2).

    A staircase has one soft hinge centered on the whole staircase, weight ``1 - tanh(2u - 1)^2``, for any number of rises.
    """

    fits: ClassVar[frozenset[Kind]] = ALL_KINDS

    def __init__(self, *, scaled: bool = True) -> None:
        super().__init__(gain=1.0, slope=1.0, offset=1.0, scaled=scaled)

    def staircase_loss(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        return (torch.tanh(-targets * (2 * position - 1)) + 1) / 2

    def staircase_weight(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        return 1 - torch.tanh(2 * position - 1).square()


class Sigmoid(TanhEstimator):
    """Layer loss ``height * sigmoid(-slope t z)``. Raises ``ValueError`` unless ``height`` and ``slope`` are positive."""

    fits: ClassVar[frozenset[Kind]] = frozenset({"sign"})

    def __init__(self, *, height: PositiveFloat = 1.0, slope: PositiveFloat = 2.0, scaled: bool = True) -> None:
        if height <= 0 or slope <= 0:
            raise ValueError(f"height ({height}) and slope ({slope}) must be positive")
        super().__init__(gain=height * slope / 4, slope=slope / 2, offset=height / 2, scaled=scaled)


class LeCunTanh(TanhEstimator):
    """Layer loss ``amplitude * tanh(-2 t z / 3) + 1``.

    The published code has 1.7519 instead of LeCun's constant 1.7159 (two digits are swapped); the published results used 1.7519.
    """

    fits: ClassVar[frozenset[Kind]] = THRESHOLD_KINDS

    def __init__(self, *, amplitude: PositiveFloat = 1.7519, scaled: bool = True) -> None:
        super().__init__(gain=amplitude * 2 / 3, slope=2 / 3, offset=1.0, scaled=scaled)
