"""All rules by the names of ``algorithm/estimator``, and which of them go with which units, modes and training options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from altprop.nn.estimators.base import KEY, Estimator
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES
from altprop.nn.estimators.margin import MarginEstimator, TruncatedHinge
from altprop.nn.estimators.straight_through import Ramp, SaturatedStraightThrough, SaturatedStraightThroughV2, StraightThrough
from altprop.nn.estimators.tanh import LeCunTanh, Sigmoid, SoftHinge
from altprop.nn.units.base import kind_of
from altprop.nn.units.levels import Kind
from altprop.problems import Problem

PUBLISHED_MARGIN_RULES = {"weighted_perceptron": "perceptron", "adaline": "adaline"}
"""Config name -> layer loss of the margin rules that have a backward pass in the paper's code."""

RULES: dict[str, type[Estimator]] = {
    "soft_hinge": SoftHinge,
    "saturated_ste": SaturatedStraightThrough,
    "ste": StraightThrough,
    "saturated_ste_v2": SaturatedStraightThroughV2,
    "truncated_hinge": TruncatedHinge,
    **dict.fromkeys(PUBLISHED_MARGIN_RULES, MarginEstimator),
    "sigmoid": Sigmoid,
    "sigmoid2": Sigmoid,
    "sigmoid3": Sigmoid,
    "lecun_tanh": LeCunTanh,
    "ramp": Ramp,
    **{name: MarginEstimator for name, loss in MARGIN_LOSSES.items() if not loss.published},
}
"""Config name -> class of the rule."""


def rules_for(kind: Kind, scaled: bool = True) -> list[str]:
    """Return the names of the rules for hard units of ``kind``; if not ``scaled``, of those that have an unscaled mode."""
    return [name for name, rule in RULES.items() if kind in rule.fits and (scaled or rule.has_unscaled)]


def problems_with(estimator: type[Estimator], config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of ``estimator``, whose node is ``config``, with the rest of the resolved configuration ``root``.

    These are the model's units, the mode, the precision and gradient accumulation. Validation calls this for every estimator,
    including those defined outside altprop.
    """
    kind = _configured_kind(root)
    scaled = bool(config.get("scaled", True))
    if kind is not None and kind not in estimator.fits:
        names = rules_for(kind, scaled)
        description = f"this rule is not defined for model/units={_choice_of_units(kind)}"
        yield Problem(KEY, description, f"these units take one of {', '.join(names)}", f"algorithm/estimator={names[0]}")
    if not scaled and not estimator.has_unscaled:
        unscaled = ", ".join(rules_for(kind or "sign", scaled=False))
        allowed = f"this rule has the scaled mode only; the unscaled one is for {unscaled}"
        yield Problem(f"{KEY}.scaled", "false", allowed, f"{KEY}.scaled=true")
    elif not scaled:
        yield from _loss_factors(root, "unscaled mode ignores the size of gradients")
    if config.get("legacy", False):
        yield from _loss_factors(root, "the legacy gradient is quadratic in the loss")


def _loss_factors(root: Mapping[str, Any], reason: str) -> Iterator[Problem]:
    """Options that scale the loss and unscale its gradient, or add up gradients of slices: only linear rules allow them."""
    trainer = root.get("trainer") or {}
    if trainer.get("precision") == "fp16":
        yield Problem("trainer.precision", "fp16 scales the loss", f"{reason}: fp32, tf32 or bf16", "trainer.precision=bf16")
    if (trainer.get("accumulate") or 1) != 1:
        yield Problem("trainer.accumulate", str(trainer["accumulate"]), f"{reason}: only 1", "trainer.accumulate=1")


def _configured_kind(root: Mapping[str, Any]) -> Kind | None:
    """The kind of the model's hard units; None if its units are smooth or unknown."""
    return kind_of((root.get("model") or {}).get("units"))


def _choice_of_units(kind: Kind) -> str:
    """The choice of ``model/units`` for hard units of ``kind``."""
    return {"sign": "sign_step", "binary": "binary_step"}.get(kind, kind)
