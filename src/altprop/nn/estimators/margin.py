"""Estimators whose weight depends on the unit's margin ``m = t z``, and so on which side of its target the unit is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from altprop.nn.estimators.base import KEY, Estimator, unit_signs
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES, truncated_hinge, truncated_hinge_weight
from altprop.nn.units.levels import Kind, Levels
from altprop.problems import ConfigError, Problem, nearest
from altprop.ranges import PositiveFloat, Text


class MarginEstimator(Estimator):
    """Any layer loss of :data:`.layer_losses.MARGIN_LOSSES`, for sign units.

    Raises ``ConfigError`` for an unknown loss.

    Args:
        loss: A name in ``MARGIN_LOSSES``.
        scaled: See :class:`Estimator`.
    """

    fits: ClassVar[frozenset[Kind]] = frozenset({"sign"})

    def __init__(self, *, loss: Text, scaled: bool = True) -> None:
        super().__init__(scaled=scaled)
        if loss not in MARGIN_LOSSES:
            raise ConfigError([_unknown_loss(loss)])
        self.loss = MARGIN_LOSSES[loss]

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.loss.loss(targets * inputs)

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.loss.weight(targets * inputs)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """The problem of an unknown loss."""
        if config.get("loss") not in MARGIN_LOSSES:
            yield _unknown_loss(str(config.get("loss")))


class TruncatedHinge(Estimator):
    """Layer loss ``min(truncation, max(0, margin - m))``; for a staircase its mean over the thresholds, in units of ``u``.

    Raises ``ValueError`` unless ``margin`` and ``truncation`` are positive.
    """

    fits: ClassVar[frozenset[Kind]] = frozenset({"sign", "staircase"})

    def __init__(self, *, margin: PositiveFloat = 1.0, truncation: PositiveFloat = 2.0, scaled: bool = True) -> None:
        super().__init__(scaled=scaled)
        if margin <= 0 or truncation <= 0:
            raise ValueError(f"margin ({margin}) and truncation ({truncation}) must be positive")
        self.margin = margin
        self.truncation = truncation

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return truncated_hinge(targets * inputs, self.margin, self.truncation)

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return truncated_hinge_weight(targets * inputs, self.margin, self.truncation)

    def staircase_loss(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        losses = [
            truncated_hinge(targets * (position - index / (rises - 1)), self.margin, self.truncation) for index in range(rises)
        ]
        return torch.stack(losses).mean(dim=0)

    def staircase_weight(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        return torch.where(targets > 0, self._upward(position, rises), self._downward(position, rises)).div_(rises)

    def _upward(self, position: Tensor, rises: int) -> Tensor:
        """The number of thresholds with a weight if the target is above: ``P = C(v + Q - M) - C(v - M)`` in the specification."""
        index, margin, truncation = self._in_intervals(position, rises)
        return thresholds_below(index + (truncation - margin), rises) - thresholds_below(index - margin, rises)

    def _downward(self, position: Tensor, rises: int) -> Tensor:
        """The same if the target is below: ``N = C(v + M) - C(v + M - Q)``."""
        index, margin, truncation = self._in_intervals(position, rises)
        return thresholds_below(index + margin, rises) - thresholds_below(index + (margin - truncation), rises)

    def _in_intervals(self, position: Tensor, rises: int) -> tuple[Tensor, float, float]:
        """``v``, ``M`` and ``Q``: position, margin and truncation in units of the distance between two thresholds."""
        return position * (rises - 1), self.margin * (rises - 1), self.truncation * (rises - 1)

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        """The number of weighted thresholds for a target above and for one below, ``[2, *inputs.shape]``, as one byte each."""
        if levels.rises > 255:
            return inputs
        if levels.kind == "staircase":
            position = levels.normalized(inputs)
            both = [self._upward(position, levels.rises), self._downward(position, levels.rises)]
        else:
            both = [truncated_hinge_weight(inputs, self.margin, self.truncation)]
            both.append(truncated_hinge_weight(-inputs, self.margin, self.truncation))
        return torch.stack([count.to(torch.uint8) for count in both])

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        assert remembered is not None
        if levels.rises > 255:
            return super().gradient(upstream, remembered, levels)
        count = torch.where(upstream < 0, remembered[0], remembered[1]).to(upstream.dtype)
        return count.mul_(upstream if self.scaled else unit_signs(upstream, levels)).div_(levels.rises)


def thresholds_below(index: Tensor, rises: int) -> Tensor:
    """``C(v) = ceil(clip(v, 0, rises))``: how many of the thresholds 0, 1, … are below ``index``."""
    return index.clamp(0, rises).ceil_()


def _unknown_loss(loss: str) -> Problem:
    suggestion = nearest(loss, MARGIN_LOSSES)
    return Problem(f"{KEY}.loss", loss, f"one of {', '.join(MARGIN_LOSSES)}", f"{KEY}.loss={suggestion}" if suggestion else "")
