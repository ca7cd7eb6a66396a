"""The contract of an estimator: a layer loss per hard unit, and the backward pass that descends on it.

A hard unit with input ``z`` and gradient ``g`` of its output gets the target ``t = -sign(g)`` and takes part in a layer loss
``l(z, t)`` (FTPROP-MB). Every rule here has ``dl/dz = -t phi`` for a weight ``phi``, so that the unit passes on

- scaled: ``dL/dz = |g| dl/dz = g phi``;
- unscaled: ``dL/dz = dl/dz / B = sign(g) phi / B`` with ``B`` the size of the first dimension.

A unit with ``g = 0`` has no target and passes on 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from altprop.nn.units.levels import Kind, Levels
from altprop.problems import ConfigError, Problem

KEY = "algorithm.estimator"
ALL_KINDS: frozenset[Kind] = frozenset({"sign", "binary", "staircase", "summed_staircase"})
THRESHOLD_KINDS: frozenset[Kind] = frozenset({"sign", "binary", "summed_staircase"})
"""The kinds of hard units that consist of single thresholds."""


class Estimator:
    """Base class of replacements for the derivative of hard units in the backward pass.

    A subclass implements the rule for a single threshold and, if ``fits`` contains ``staircase``, for a staircase on ``u`` in
    [0, 1]. It may override :meth:`remember` and :meth:`gradient` together to save less or to compute faster.

    Raises ``ConfigError`` if ``scaled`` is false and the rule has no unscaled mode.

    Args:
        scaled: Multiply each unit's layer loss by ``B |g|``. If false, every unit has the same weight.
    """

    fits: ClassVar[frozenset[Kind]] = frozenset()
    """The kinds of hard units that the rule is defined for."""
    has_unscaled: ClassVar[bool] = True
    """Whether the rule has an unscaled mode."""

    def __init__(self, *, scaled: bool = True) -> None:
        if not scaled and not self.has_unscaled:
            raise ConfigError([Problem(f"{KEY}.scaled", "false", "this rule has the scaled mode only", f"{KEY}.scaled=true")])
        self.scaled = scaled

    # -- the rule, on tensors that all have the same shape; targets are -1 or +1 ------------------------------------------------

    def threshold_loss(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        """Layer loss of a unit with one threshold, at 0, and outputs {-1, +1}, or {0, 1} if ``binary``."""
        raise NotImplementedError

    def threshold_weight(self, inputs: Tensor, targets: Tensor, binary: bool) -> Tensor:
        """``phi`` of that unit."""
        raise NotImplementedError

    def staircase_loss(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        """Layer loss of a staircase whose first threshold is at ``position`` 0 and whose last one is at 1."""
        raise NotImplementedError

    def staircase_weight(self, position: Tensor, targets: Tensor, rises: int) -> Tensor:
        """``phi`` of that staircase."""
        raise NotImplementedError

    # -- the same for units of any geometry -------------------------------------------------------------------------------------

    def layer_loss(self, inputs: Tensor, targets: Tensor, levels: Levels) -> Tensor:
        """``l(z, t)`` of every unit, differentiable in ``inputs``; ``targets`` are -1 or +1 and have the shape of ``inputs``.

        The scaled gradient is ``|g| levels.gradient_scale dl/dz``, the unscaled one ``dl/dz / B``.
        """
        if levels.kind == "staircase":
            return self.staircase_loss(levels.normalized(inputs), targets, levels.rises)
        if levels.kind == "summed_staircase":
            losses = [self.threshold_loss(inputs - threshold, targets, binary=True) for threshold in levels.thresholds]
            return torch.stack(losses).sum(dim=0)
        return self.threshold_loss(inputs, targets, binary=levels.kind == "binary")

    def weight(self, inputs: Tensor, targets: Tensor, levels: Levels) -> Tensor:
        """``phi`` of every unit, the factor on its gradient in scaled mode."""
        if levels.kind == "staircase":
            return self.staircase_weight(levels.normalized(inputs), targets, levels.rises)
        if levels.kind == "summed_staircase":
            total = torch.zeros_like(inputs)
            for threshold in levels.thresholds:
                total += self.threshold_weight(inputs - threshold, targets, binary=True)
            return total.mul_(levels.gradient_scale)
        return self.threshold_weight(inputs, targets, binary=levels.kind == "binary")

    def active(self, inputs: Tensor, levels: Levels) -> Tensor:
        """Which units a gradient can move: those whose weight toward the other side is at least half the weight at the center.

        Boolean, in the shape of ``inputs``. For saturated rules these are exactly the units with a nonzero gradient.
        """
        center = inputs.new_full((), 0.0 if levels.rises == 1 else (levels.low + levels.high) / 2)
        opposing = torch.where(inputs > center, -1.0, 1.0).to(inputs.dtype)
        return self.weight(inputs, opposing, levels) >= self.weight(center, torch.ones_like(center), levels) / 2

    # -- the backward pass ------------------------------------------------------------------------------------------------------

    def remember(self, inputs: Tensor, levels: Levels) -> Tensor | None:
        """What the backward pass needs to know about the unit's ``inputs``, in the smallest sufficient type; None if nothing."""
        return inputs

    def gradient(self, upstream: Tensor, remembered: Tensor | None, levels: Levels) -> Tensor:
        """``dL/dz`` in the shape and type of ``upstream`` (``g``), computed from what :meth:`remember` returned."""
        assert remembered is not None
        weight = self.weight(remembered, upstream.sign().neg_(), levels).to(upstream.dtype)
        return weight.mul_(upstream) if self.scaled else weight.mul_(unit_signs(upstream, levels))

    # -- configuration ----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterable[Problem]:
        """Problems with the rule's own options, for subclasses that have some.

        Whether the rule fits the model's units, the mode and the precision is checked for every estimator, by
        :func:`altprop.nn.estimators.rules.problems_with`.
        """
        return ()


def unit_signs(upstream: Tensor, levels: Levels) -> Tensor:
    """``sign(g) / B``, divided by the unit's gradient scale: replaces ``g`` in unscaled mode."""
    return upstream.sign().div_(upstream.shape[0] * levels.gradient_scale)
