"""The names of all rules, as ``algorithm/estimator=<name>`` knows them, and the class behind each."""

from __future__ import annotations

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES
from altprop.nn.estimators.margin import MarginEstimator, TruncatedHinge
from altprop.nn.estimators.straight_through import Ramp, SaturatedStraightThrough, SaturatedStraightThroughV2, StraightThrough
from altprop.nn.estimators.tanh import LeCunTanh, Sigmoid, SoftHinge
from altprop.nn.units.levels import Kind

PUBLISHED_MARGIN_RULES = {"weighted_perceptron": "perceptron", "adaline": "adaline"}
"""Config name -> layer loss of the margin rules that the paper's code has a backward pass for."""

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


def rules_for(kind: Kind, scaled: bool = True) -> list[str]:
    """The rules that fit hard units of ``kind``, in unscaled mode those that have one."""
    return [name for name, rule in RULES.items() if kind in rule.fits and (scaled or rule.has_unscaled)]
