"""Saturating units: the full-precision counterparts of thresholds and staircases. Autograd differentiates them.

As in the published code, the derivative exactly at the upper bound is the slope below it, and exactly at a lower bound it is 0.
"""

from __future__ import annotations

from torch import Tensor, nn

from altprop.ranges import PositiveFloat


class SaturatedReLU(nn.Module):
    """``min(max(0, slope z), ceiling)``. Raises ``ValueError`` unless ``ceiling`` and ``slope`` are positive."""

    def __init__(self, *, ceiling: PositiveFloat = 1.0, slope: PositiveFloat = 1.0) -> None:
        super().__init__()
        if ceiling <= 0 or slope <= 0:
            raise ValueError(f"ceiling ({ceiling}) and slope ({slope}) must be positive")
        self.ceiling = ceiling
        self.slope = slope

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the unit to each element of ``inputs``, any shape."""
        scaled = inputs if self.slope == 1 else inputs * self.slope
        return scaled.relu().clamp(max=self.ceiling)

    def extra_repr(self) -> str:
        return f"ceiling={self.ceiling:g}, slope={self.slope:g}"


class ClippedAbs(nn.Module):
    """``min(|z|, 1)``."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the unit to each element of ``inputs``, any shape."""
        return inputs.abs().clamp(max=1.0)


class HardSigmoid(nn.Module):
    """``clip((z + 1) / 2, 0, 1)``: slope 1/2, unlike torch's ``Hardsigmoid``, whose slope is 1/6."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the unit to each element of ``inputs``, any shape."""
        return ((inputs + 1) / 2).relu().clamp(max=1.0)
