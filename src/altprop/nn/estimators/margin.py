"""Estimators whose weight depends on the unit's margin ``m = t z``: on which side of its target the unit is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from altprop.nn.estimators.base import KEY, Estimator, unit_signs
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES, truncated_hinge, truncated_hinge_weight
from altprop.nn.units.levels import Kind, Levels
from altprop.problems import ConfigError, Problem, nearest


class MarginEstimator(Estimator):
    """Any layer loss of :data:`.layer_losses.MARGIN_LOSSES`, for sign units. Raises ``ConfigError`` for others."""

    fits: ClassVar[frozenset[Kind]] = frozenset({"sign"})

    def __init__(self, loss: str, scaled: bool = True) -> None:
        super().__init__(scaled)
        if loss not in MARGIN_LOSSES:
            raise ConfigError([_unknown_loss(loss)])
        self.loss = MARGIN_LOSSES[loss]

    def step_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.loss.loss(targets * inputs)

    def step_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return self.loss.weight(targets * inputs)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the estimator's own node and with the model's units."""
        if config.get("loss") not in MARGIN_LOSSES:
            yield _unknown_loss(str(config.get("loss")))
        yield from super().check(config, root)


class TruncatedHinge(Estimator):
    """Layer loss ``min(truncation, max(0, margin - m))``; for a staircase its mean over the steps, in units of ``u``.

    Raises ``ValueError`` unless both are positive.
    """

    fits: ClassVar[frozenset[Kind]] = frozenset({"sign", "staircase"})

    def __init__(self, margin: float = 1.0, truncation: float = 2.0, scaled: bool = True) -> None:
        super().__init__(scaled)
        if margin <= 0 or truncation <= 0:
            raise ValueError(f"margin ({margin}) and truncation ({truncation}) must be positive")
        self.margin = margin
        self.truncation = truncation

    def step_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return truncated_hinge(targets * inputs, self.margin, self.truncation)

    def step_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        return truncated_hinge_weight(targets * inputs, self.margin, self.truncation)

    def staircase_loss(self, position: Tensor, targets: Tensor, steps: int) -> Tensor:
        losses = [
            truncated_hinge(targets * (position - index / (steps - 1)), self.margin, self.truncation) for index in range(steps)
        ]
        return torch.stack(losses).mean(dim=0)

    def staircase_weight(self, position: Tensor, targets: Tensor, steps: int) -> Tensor:
        return torch.where(targets > 0, self._upward(position, steps), self._downward(position, steps)).div_(steps)

    def _upward(self, position: Tensor, steps: int) -> Tensor:
        """The number of steps that a target above leaves a weight on: spec's ``P = C(v + Q - M) - C(v - M)``."""
        index, margin, truncation = self._in_steps(position, steps)
        return steps_below(index + (truncation - margin), steps) - steps_below(index - margin, steps)

    def _downward(self, position: Tensor, steps: int) -> Tensor:
        """The same for a target below: ``N = C(v + M) - C(v + M - Q)``."""
        index, margin, truncation = self._in_steps(position, steps)
        return steps_below(index + margin, steps) - steps_below(index + (margin - truncation), steps)

    def _in_steps(self, position: Tensor, steps: int) -> tuple[Tensor, float, float]:
        return position * (steps - 1), self.margin * (steps - 1), self.truncation * (steps - 1)

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        """The number of weighted steps for a target above and for one below, ``[2, *inputs.shape]``, in one byte each."""
        if levels.steps > 255:
            return inputs
        if levels.kind == "staircase":
            position = levels.normalized(inputs)
            both = [self._upward(position, levels.steps), self._downward(position, levels.steps)]
        else:
            both = [truncated_hinge_weight(inputs, self.margin, self.truncation)]
            both.append(truncated_hinge_weight(-inputs, self.margin, self.truncation))
        return torch.stack([count.to(torch.uint8) for count in both])

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        assert remembered is not None
        if levels.steps > 255:
            return super().gradient(upstream, remembered, levels)
        count = torch.where(upstream < 0, remembered[0], remembered[1]).to(upstream.dtype)
        return count.mul_(upstream if self.scaled else unit_signs(upstream, levels)).div_(levels.steps)


def steps_below(index: Tensor, steps: int) -> Tensor:
    """``C(v) = ceil(clip(v, 0, steps))``: how many of the steps 0, 1, … lie below ``index``."""
    return index.clamp(0, steps).ceil_()


def _unknown_loss(loss: str) -> Problem:
    hint = nearest(loss, MARGIN_LOSSES)
    return Problem(f"{KEY}.loss", loss, f"one of {', '.join(MARGIN_LOSSES)}", f"{KEY}.loss={hint}" if hint else "")
