"""Every rule as ``algorithm/estimator`` configures it, and the closed form of its weight, transcribed from the paper's code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES
from altprop.nn.estimators.margin import MarginEstimator, TruncatedHinge
from altprop.nn.estimators.rules import PUBLISHED_MARGIN_RULES
from altprop.nn.estimators.straight_through import Ramp, SaturatedStraightThrough, SaturatedStraightThroughV2, StraightThrough
from altprop.nn.estimators.tanh import LeCunTanh, Sigmoid, SoftHinge
from altprop.nn.units.levels import Kind, Levels

Array = np.ndarray
Rule = Callable[..., Estimator]

RULES: dict[str, Rule] = {
    "soft_hinge": SoftHinge,
    "saturated_ste": SaturatedStraightThrough,
    "ste": StraightThrough,
    "saturated_ste_v2": SaturatedStraightThroughV2,
    "truncated_hinge": TruncatedHinge,
    "sigmoid": lambda scaled=True: Sigmoid(height=1, slope=2, scaled=scaled),
    "sigmoid2": lambda scaled=True: Sigmoid(height=2, slope=2, scaled=scaled),
    "sigmoid3": lambda scaled=True: Sigmoid(height=2, slope=3, scaled=scaled),
    "lecun_tanh": LeCunTanh,
    "ramp": Ramp,
    **{
        name: lambda scaled=True, loss=loss: MarginEstimator(loss=loss, scaled=scaled)
        for name, loss in PUBLISHED_MARGIN_RULES.items()
    },
    **{
        name: lambda scaled=True, loss=name: MarginEstimator(loss=loss, scaled=scaled)
        for name, loss in MARGIN_LOSSES.items()
        if not loss.published
    },
}

LEVELS: dict[str, Levels] = {
    "sign": Levels("sign", low=-1.0, high=1.0),
    "binary": Levels("binary"),
    "staircase3": Levels("staircase", 3),
    "staircase5": Levels("staircase", 5),
    "staircase3_centred": Levels("staircase", 3, -1.0, 1.0),
    "summed5": Levels("summed_staircase", 5),
    "summed3_centred": Levels("summed_staircase", 3, -1.0, 1.0),
}


def bump(z: Array) -> Array:
    return 1 / np.cosh(z) ** 2


def indicator(condition: Array) -> Array:
    return condition.astype(float)


SIGN: dict[str, Callable[[Array, Array], Array]] = {
    "soft_hinge": lambda z, t: bump(z),
    "saturated_ste": lambda z, t: indicator(abs(z) <= 1),
    "ste": lambda z, t: np.ones_like(z),
    "saturated_ste_v2": lambda z, t: indicator(abs(z) <= 3**0.5),
    "truncated_hinge": lambda z, t: indicator((t * z > -1) & (t * z <= 1)),
    "weighted_perceptron": lambda z, t: indicator(t * z <= 0),
    "adaline": lambda z, t: -t * (z - t),
    "sigmoid": lambda z, t: bump(z) / 2,
    "sigmoid2": lambda z, t: bump(z),
    "sigmoid3": lambda z, t: 1.5 * bump(1.5 * z),
    "lecun_tanh": lambda z, t: 1.7519 * 2 / 3 * bump(2 * z / 3),
    "ramp": lambda z, t: np.clip(2 - abs(z), 0, 1),
}
"""``phi(z, t)`` for sign units, of the rules that have a backward pass in the paper's code."""

BINARY: dict[str, Callable[[Array], Array]] = {
    "soft_hinge": bump,
    "saturated_ste": lambda z: indicator((z >= 0) & (z <= 1)),
    "ste": np.ones_like,
    "saturated_ste_v2": lambda z: indicator((z >= 0) & (z <= 3**0.5)),
    "lecun_tanh": lambda z: 1.7519 * 2 / 3 * bump(2 * z / 3),
    "ramp": lambda z: np.select([(z >= 0) & (z <= 1), (z > -1) & (z < 0), (z > 1) & (z < 2)], [1.0, z + 1, 2 - z], 0.0),
}
"""``phi(z)`` for binary units."""


def staircase_weight(name: str, u: Array, t: Array, rises: int) -> Array:
    """``phi(u, t)`` for staircases."""
    if name == "soft_hinge":
        return bump(2 * u - 1)
    if name == "saturated_ste":
        return indicator((u >= 0) & (u <= 1))
    assert name == "truncated_hinge"
    v, margin, truncation = u * (rises - 1), 1.0 * (rises - 1), 2.0 * (rises - 1)

    def count(w: Array) -> Array:
        return np.ceil(np.clip(w, 0, rises))

    up = count(v + truncation - margin) - count(v - margin)
    down = count(v + margin) - count(v + margin - truncation)
    return np.where(t > 0, up, down) / rises


def closed_form(name: str, levels: Levels, z: Array, g: Array, scaled: bool) -> Array:
    """The gradient of the unit's input as the paper's code defines it; ``z`` and ``g`` are ``[batch, units]``."""
    t = -np.sign(g)
    signal = g if scaled else np.sign(g) / len(g)
    span = levels.high - levels.low
    if levels.kind == "sign":
        return signal * SIGN[name](z, t)
    if levels.kind == "binary":
        return signal * BINARY[name](z)
    if levels.kind == "staircase":
        u = (z - levels.low) / span
        return signal * staircase_weight(name, u, t, levels.rises) / (1 if scaled else span)
    spacing = span / (levels.rises - 1)
    total = sum(BINARY[name](z - levels.low - index * spacing) for index in range(levels.rises))
    return signal * total * (span / levels.rises if scaled else 1)


def combinations(scaled: bool | None = None) -> list[tuple[str, str, bool]]:
    """Every allowed (rule, unit, scaled)."""
    cases = []
    for name, rule in RULES.items():
        for unit, levels in LEVELS.items():
            kind: Kind = levels.kind
            for mode in (True, False) if scaled is None else (scaled,):
                estimator = rule()
                if kind in estimator.fits and (mode or estimator.has_unscaled):
                    cases.append((name, unit, mode))
    return cases
