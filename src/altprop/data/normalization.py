"""Conversion of 8-bit pixels to normalized floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """``(pixel / 255 - mean) / std`` per channel; ``scale`` and ``shift`` are ``[channels, 1, 1]`` float32 on the device."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Normalization:
        """Build the normalization from the mean and standard deviation of each channel, in units of [0, 1]."""
        # Computing in float64 and rounding the two constants once keeps the result within 1e-6 of two divisions.
        mean64 = torch.tensor(list(mean), dtype=torch.float64).view(-1, 1, 1)
        std64 = torch.tensor(list(std), dtype=torch.float64).view(-1, 1, 1)
        scale = (1 / (255 * std64)).to(device, torch.float32)
        shift = (-mean64 / std64).to(device, torch.float32)
        return cls(scale, shift)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Convert uint8 ``[batch, channels, height, width]`` to normalized float32 of the same shape."""
        return pixels.to(torch.float32).mul_(self.scale).add_(self.shift)
