"""Straight-through estimators: the gradient passes if the unit's input is in a fixed zone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from altprop.nn.estimators.base import ALL_KINDS, THRESHOLD_KINDS, Estimator
from altprop.nn.units.levels import Kind, Levels, full_precision


class StraightThrough(Estimator):
    """STE: the gradient passes unchanged, ``phi = 1``; the layer loss is linear, ``-t z``."""

    fits: ClassVar[frozenset[Kind]] = THRESHOLD_KINDS
    has_unscaled: ClassVar[bool] = False

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return -targets * inputs

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return torch.ones_like(inputs)

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        return None

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        if levels.gradient_scale == 1 and levels.rises == 1:
            return upstream
        return upstream * (levels.gradient_scale * levels.rises)


class SaturatedStraightThrough(Estimator):
    """SSTE: ``phi = 1`` on ``|z| <= 1`` (``0 <= z <= 1`` for binary units, ``0 <= u <= 1`` for staircases), else 0.

    The layer loss is the saturated hinge ``-t clip(z, -1, 1)``, up to a constant. The zone includes both ends.
    """

    fits: ClassVar[frozenset[Kind]] = ALL_KINDS
    has_unscaled: ClassVar[bool] = False
    bound: ClassVar[float] = 1.0

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return -targets * inputs.clamp(0.0 if binary else -self.bound, self.bound)

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self._zone(inputs, binary).to(inputs.dtype)

    def staircase_loss(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        return -targets * position.clamp(0, 1)

    def staircase_weight(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        return self._zone(position, binary=True).to(position.dtype)

    def _zone(self, inputs: Tensor, binary: bool) -> Tensor:
        # Comparing in place, in floating point, is vectorized on a CPU; comparisons that return booleans are not. A distance from
        # the center of the zone would round, and inputs just below 0 would be at 0.
        zone = inputs.clamp(0.0, self.bound).eq_(inputs) if binary else inputs.abs().le_(self.bound)
        return zone.to(torch.bool)

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        """A mask of one byte per unit; for a summed staircase the number of thresholds whose zone contains the input."""
        if levels.kind == "summed_staircase":
            ones = torch.ones_like(inputs)
            return (self.weight(inputs, ones, levels) / levels.gradient_scale).round_().to(torch.uint8)
        if levels.kind == "staircase":
            return self._zone(levels.normalized(inputs), binary=True)
        return self._zone(inputs, binary=levels.kind == "binary")

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        assert remembered is not None
        if remembered.dtype == torch.bool:
            return remembered.view(torch.uint8).to(upstream.dtype).mul_(upstream)
        return remembered.to(upstream.dtype).mul_(levels.gradient_scale).mul_(upstream)


class SaturatedStraightThroughV2(SaturatedStraightThrough):
    """SSTE with the wider zone ``|z| <= sqrt(3)`` (binary units: ``0 <= z <= sqrt(3)``).

    Args:
        scaled: See :class:`Estimator`; only the scaled mode exists.
        legacy: Reproduce the published code, which scales this rule's gradient a second time and so computes ``B g |g|`` instead
            of ``g`` within the zone.
    """

    fits: ClassVar[frozenset[Kind]] = THRESHOLD_KINDS
    bound: ClassVar[float] = 3.0**0.5

    def __init__(self, *, scaled: bool = True, legacy: bool = False) -> None:
        super().__init__(scaled=scaled)
        self.legacy = legacy

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        gradient = super().gradient(upstream, remembered, levels)
        if self.legacy:
            # Each threshold of a summed staircase receives g (high - low) / rises, so that this factor is squared as well.
            gradient = gradient * upstream.abs() * (upstream.shape[0] * levels.gradient_scale)
        return gradient


class Ramp(Estimator):
    """``phi = clip(2 - |z|, 0, 1)``; for binary units the same trapezoid around 1/2, ``clip(3/2 - |z - 1/2|, 0, 1)``."""

    fits: ClassVar[frozenset[Kind]] = THRESHOLD_KINDS
    has_unscaled: ClassVar[bool] = False

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        centered = inputs - 0.5 if binary else inputs
        flat = 0.5 if binary else 1.0
        distance = centered.abs().clamp(max=flat + 1)
        return -targets * centered.sign() * (distance - (distance - flat).clamp(min=0).square() / 2)

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        if binary:
            return full_precision(inputs).sub(0.5).abs_().neg_().add_(1.5).clamp_(0, 1)
        return full_precision(inputs).abs().neg_().add_(2).clamp_(0, 1)
