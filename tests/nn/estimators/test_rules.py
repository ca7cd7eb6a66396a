"""Validation rejects every combination of rule, unit and mode that the paper's code does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.rules import RULES, problems_with, rules_for
from altprop.nn.units.levels import Kind
from tests.nn.estimators.cases import BINARY, SIGN

CONF = Path(__file__).parents[3] / "conf"
UNITS = ["sign_step", "binary_step", "staircase", "staircase3", "summed_staircase"]
FITTING = {
    "sign_step": set(RULES),
    "binary_step": set(BINARY),
    "summed_staircase": set(BINARY),
    "staircase": {"soft_hinge", "saturated_ste", "truncated_hinge"},
    "staircase3": {"soft_hinge", "saturated_ste", "truncated_hinge"},
}
SCALED_ONLY = {"ste", "saturated_ste", "saturated_ste_v2", "ramp"}


def node(group: str, choice: str) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{choice}.yaml"))
    assert isinstance(content, dict)
    inherited = [name for name in content.pop("defaults", []) if name != "_self_"]
    return {**(node(group, inherited[0]) if inherited else {}), **content}


def problems(rule: str, units: str, trainer: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    config = {**node("algorithm/estimator", rule), **changes}
    root = {"model": {"units": node("model/units", units)}, "trainer": trainer or {"precision": "fp32", "accumulate": 1}}
    return all_problems(config, root)


def all_problems(config: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """The problems that validation reports for an estimator's node."""
    rule = get_class(config["_target_"])
    return [str(problem) for problem in (*rule.check(config, root), *problems_with(rule, config, root))]


def test_rules_and_configuration_files_correspond() -> None:
    files = {path.stem for path in (CONF / "algorithm" / "estimator").glob("*.yaml")} - {"none"}
    assert files == set(RULES)
    for name, rule in RULES.items():
        estimator = instantiate(node("algorithm/estimator", name))
        assert isinstance(estimator, Estimator)
        assert type(estimator) is rule


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_rejected_for_units_that_they_do_not_fit(rule: str, units: str) -> None:
    lines = problems(rule, units)
    if rule in FITTING[units]:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("algorithm.estimator: this rule is not defined for model/units=")
        assert all(name in line for name in FITTING[units])
        assert "try: algorithm/estimator=soft_hinge" in line


@pytest.mark.parametrize("rule", RULES)
def test_unscaled_mode_is_rejected_for_rules_without_it(rule: str) -> None:
    lines = problems(rule, "sign_step", scaled=False)
    assert (lines != []) == (rule in SCALED_ONLY)
    if lines:
        assert lines[0].startswith("algorithm.estimator.scaled: false; this rule has the scaled mode only")
        assert "soft_hinge" in lines[0]
        assert "saturated_ste," not in lines[0]


@pytest.mark.parametrize("trainer", [{"precision": "fp16", "accumulate": 1}, {"precision": "fp32", "accumulate": 4}])
def test_options_that_scale_the_loss_need_a_linear_rule(trainer: dict[str, Any]) -> None:
    assert problems("soft_hinge", "sign_step", trainer) == []
    (line,) = problems("soft_hinge", "sign_step", trainer, scaled=False)
    assert line.startswith("trainer.")
    (line,) = problems("saturated_ste_v2", "sign_step", trainer, legacy=True)
    assert "quadratic" in line


def test_unknown_layer_losses_are_rejected() -> None:
    (line,) = problems("hinge", "sign_step", loss="hings")
    assert "try: algorithm.estimator.loss=hinge" in line


def test_smooth_units_have_no_problems() -> None:
    assert all_problems(node("algorithm/estimator", "adaline"), {"model": {"units": {"_target_": "torch.nn.ReLU"}}}) == []


class OwnEstimator(Estimator):
    """An estimator as a user would define it, for sign units only."""

    fits = frozenset({"sign"})
    has_unscaled = False


def test_validation_checks_estimators_defined_elsewhere() -> None:
    """They get the same problems, in the same words, as altprop's own, without a ``check`` of their own."""
    path = f"{OwnEstimator.__module__}.{OwnEstimator.__qualname__}"
    overrides = ["model/units=staircase", "algorithm=target_propagation", "algorithm/estimator=ste"]
    config = compose([*overrides, f"algorithm.estimator._target_={path}", "algorithm.estimator.scaled=false"])
    lines = [str(problem) for problem in problems_of(config)]
    assert [line.partition(";")[0] for line in lines] == [
        "algorithm.estimator: this rule is not defined for model/units=staircase",
        "algorithm.estimator.scaled: false",
    ]


def test_rules_by_unit() -> None:
    units: dict[Kind, str] = {
        "sign": "sign_step",
        "binary": "binary_step",
        "staircase": "staircase",
        "summed_staircase": "summed_staircase",
    }
    for kind, unit in units.items():
        assert set(rules_for(kind)) == FITTING[unit]
        assert set(rules_for(kind, scaled=False)) == FITTING[unit] - SCALED_ONLY
    assert set(SIGN) | {name for name in RULES if name not in SIGN} == FITTING["sign_step"]
