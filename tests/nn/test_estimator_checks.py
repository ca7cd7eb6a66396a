"""What validation refuses: every combination of rule, unit and mode that the paper's code does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.rules import RULES, rules_for
from altprop.nn.units.hard import UNIT_KINDS
from tests.nn.estimator_cases import BINARY, SIGN

CONF = Path(__file__).parents[2] / "conf"
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
    return [str(problem) for problem in get_class(config["_target_"]).check(config, root)]


def test_every_rule_has_a_file_and_every_file_is_a_rule() -> None:
    files = {path.stem for path in (CONF / "algorithm" / "estimator").glob("*.yaml")} - {"none"}
    assert files == set(RULES)
    for name, rule in RULES.items():
        estimator = instantiate(node("algorithm/estimator", name))
        assert isinstance(estimator, Estimator)
        assert type(estimator) is rule


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_refused_for_units_they_are_not_defined_for(rule: str, units: str) -> None:
    found = problems(rule, units)
    if rule in FITTING[units]:
        assert found == []
    else:
        (line,) = found
        assert line.startswith("algorithm.estimator: this rule is not defined for model/units=")
        assert all(name in line for name in FITTING[units])
        assert "try: algorithm/estimator=soft_hinge" in line


@pytest.mark.parametrize("rule", RULES)
def test_unscaled_mode_is_refused_where_there_is_none(rule: str) -> None:
    found = problems(rule, "sign_step", scaled=False)
    assert (found != []) == (rule in SCALED_ONLY)
    if found:
        assert found[0].startswith("algorithm.estimator.scaled: false; this rule has the scaled mode only")
        assert "soft_hinge" in found[0]
        assert "saturated_ste," not in found[0]


@pytest.mark.parametrize("trainer", [{"precision": "fp16", "accumulate": 1}, {"precision": "fp32", "accumulate": 4}])
def test_what_multiplies_the_loss_needs_a_linear_rule(trainer: dict[str, Any]) -> None:
    assert problems("soft_hinge", "sign_step", trainer) == []
    (line,) = problems("soft_hinge", "sign_step", trainer, scaled=False)
    assert line.startswith("trainer.")
    (line,) = problems("saturated_ste_v2", "sign_step", trainer, legacy=True)
    assert "quadratic" in line


def test_unknown_layer_losses_and_foreign_units() -> None:
    (line,) = problems("hinge", "sign_step", loss="hings")
    assert "try: algorithm.estimator.loss=hinge" in line
    config = node("algorithm/estimator", "adaline")
    assert list(get_class(config["_target_"]).check(config, {"model": {"units": {"_target_": "torch.nn.ReLU"}}})) == []


def test_rules_by_unit() -> None:
    by_unit = {"sign": "sign_step", "binary": "binary_step", "staircase": "staircase", "summed_staircase": "summed_staircase"}
    for kind in UNIT_KINDS.values():
        assert set(rules_for(kind)) == FITTING[by_unit[kind]]
        assert set(rules_for(kind, scaled=False)) == FITTING[by_unit[kind]] - SCALED_ONLY
    assert set(SIGN) | {name for name in RULES if name not in SIGN} == FITTING["sign_step"]
