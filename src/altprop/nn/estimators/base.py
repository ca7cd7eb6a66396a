"""The contract of an estimator: a layer loss per hard unit, and the backward pass that descends on it.

A hard unit with input ``z`` and gradient ``g`` of its output gets the target ``t = -sign(g)`` and takes part in a layer loss
``l(z, t)`` (FTPROP-MB). Every rule here has ``dl/dz = -t phi`` for a weight ``phi``, so that the unit passes on

- scaled: ``dL/dz = |g| dl/dz = g phi``;
- unscaled: ``dL/dz = dl/dz / B = sign(g) phi / B`` with ``B`` the size of the first dimension.

A unit with ``g = 0`` has no target and passes on 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from altprop.nn.units.levels import Kind, Levels
from altprop.problems import ConfigError, Problem

KEY = "algorithm.estimator"
ALL_KINDS: frozenset[Kind] = frozenset({"sign", "binary", "staircase", "summed_staircase"})
STEP_KINDS: frozenset[Kind] = frozenset({"sign", "binary", "summed_staircase"})


class Estimator:
    """What stands in for the derivative of hard units in the backward pass.

    A sub-class gives the rule for one step and, where ``fits`` has ``staircase``, for a staircase on ``u`` in [0, 1]; it may
    override :meth:`remember` and :meth:`gradient` together to save less or to compute faster. ``scaled`` multiplies each unit's
    layer loss by ``B |g|``; without it every unit weighs the same. Raises ``ConfigError`` for an unscaled rule that has no layer
    loss of its own.
    """

    fits: ClassVar[frozenset[Kind]] = frozenset()
    """The kinds of hard units that the rule is defined for."""
    has_unscaled: ClassVar[bool] = True
    """Whether the unscaled mode exists."""

    def __init__(self, scaled: bool = True) -> None:
        if not scaled and not self.has_unscaled:
            raise ConfigError([Problem(f"{KEY}.scaled", "false", "this rule has the scaled mode only", f"{KEY}.scaled=true")])
        self.scaled = scaled

    # -- the rule, on tensors of any one shape; targets are -1 or +1 ------------------------------------------------------------

    def step_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        """Layer loss of a single step at 0 with outputs {-1, +1}, or {0, 1} where ``binary``."""
        raise NotImplementedError

    def step_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        """``phi`` of a single step."""
        raise NotImplementedError

    def staircase_loss(self, position: Tensor, targets: Tensor, steps: int) -> Tensor:
        """Layer loss of a staircase whose first step is at ``position`` 0 and whose last is at 1."""
        raise NotImplementedError

    def staircase_weight(self, position: Tensor, targets: Tensor, steps: int) -> Tensor:
        """``phi`` of that staircase."""
        raise NotImplementedError

    # -- the same for units of any geometry -------------------------------------------------------------------------------------

    def layer_loss(self, inputs: Tensor, targets: Tensor, levels: Levels) -> Tensor:
        """``l(z, t)`` of every unit, differentiable in ``inputs``; both of one shape, ``targets`` -1 or +1.

        The scaled gradient is ``|g| levels.rise dl/dz``, the unscaled one ``dl/dz / B``.
        """
        if levels.kind == "staircase":
            return self.staircase_loss(levels.normalized(inputs), targets, levels.steps)
        if levels.kind == "summed_staircase":
            losses = [self.step_loss(inputs - threshold, targets, binary=True) for threshold in levels.thresholds]
            return torch.stack(losses).sum(dim=0)
        return self.step_loss(inputs, targets, binary=levels.kind == "binary")

    def weight(self, inputs: Tensor, targets: Tensor, levels: Levels) -> Tensor:
        """``phi`` of every unit: what its gradient is multiplied by in scaled mode."""
        if levels.kind == "staircase":
            return self.staircase_weight(levels.normalized(inputs), targets, levels.steps)
        if levels.kind == "summed_staircase":
            total = torch.zeros_like(inputs)
            for threshold in levels.thresholds:
                total += self.step_weight(inputs - threshold, targets, binary=True)
            return total.mul_(levels.rise)
        return self.step_weight(inputs, targets, binary=levels.kind == "binary")

    def active(self, inputs: Tensor, levels: Levels) -> Tensor:
        """Which units a gradient can move: those whose weight toward the other side is at least half that of the center.

        Boolean, of the shape of ``inputs``; for saturated rules exactly the units with a gradient other than 0.
        """
        center = inputs.new_full((), 0.0 if levels.steps == 1 else (levels.low + levels.high) / 2)
        opposing = torch.where(inputs > center, -1.0, 1.0).to(inputs.dtype)
        return self.weight(inputs, opposing, levels) >= self.weight(center, torch.ones_like(center), levels) / 2

    # -- the backward pass ------------------------------------------------------------------------------------------------------

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        """What the backward pass needs of the unit's ``inputs``, in the smallest type that holds it."""
        return inputs

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        """``dL/dz`` of the shape and type of ``upstream`` (``g``), from what :meth:`remember` returned."""
        assert remembered is not None
        weight = self.weight(remembered, upstream.sign().neg_(), levels).to(upstream.dtype)
        return weight.mul_(upstream) if self.scaled else weight.mul_(unit_signs(upstream, levels))

    # -- configuration ----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of this estimator with the model's units, the mode and the precision."""
        from altprop.nn.estimators.checks import problems  # imported late: the table of all rules imports this module

        yield from problems(cls, config, root)


def unit_signs(upstream: Tensor, levels: Levels) -> Tensor:
    """``sign(g) / B`` over the unit's rise: what takes the place of ``g`` in unscaled mode."""
    return upstream.sign().div_(upstream.shape[0] * levels.rise)
