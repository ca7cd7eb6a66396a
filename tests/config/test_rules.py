from typing import Any, ClassVar

import pytest
import torch

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Capabilities
from altprop.config.checks.validation import plain_and_valid, problems_of
from altprop.config.compose import compose
from altprop.models.energy import EnergyModel
from altprop.nn.weights.base import WeightsRule

HERE = "tests.config.test_rules"


class Plain(Algorithm):
    """Supports nothing beyond a step."""

    capabilities: ClassVar[Capabilities] = Capabilities(weights_rules=False)


class Blockwise(Algorithm):
    capabilities: ClassVar[Capabilities] = Capabilities(needs_blocks=True)


class Relaxing(Algorithm):
    capabilities: ClassVar[Capabilities] = Capabilities(needs_energy=True)


class Thresholds(Algorithm):
    capabilities: ClassVar[Capabilities] = Capabilities(needs_hard_units=True)


class Native(Algorithm):
    capabilities: ClassVar[Capabilities] = Capabilities(native_hard_units=True)


class Halved(WeightsRule):
    """A rule that is not dense."""


class Headless(torch.nn.Module):
    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()


def by(algorithm: type[Algorithm]) -> str:
    return f"algorithm._target_={HERE}.{algorithm.__name__}"


def told(*overrides: str) -> list[tuple[str, str]]:
    return [(problem.key, problem.fix) for problem in problems_of(compose(overrides))]


@pytest.mark.parametrize(
    ("option", "off"),
    [
        ("precision=bf16", "fp32"),
        ("precision=fp16", "fp32"),
        ("compile=true", "false"),
        ("accumulate=2", "1"),
        ("clip_norm=1.0", "null"),
    ],
)
def test_an_option_that_the_algorithm_does_not_support_is_refused(option: str, off: str) -> None:
    key = f"trainer.{option.partition('=')[0]}"
    assert told(by(Plain), f"trainer.{option}") == [(key, f"{key}={off}")]
    assert told(f"trainer.{option}") == []


def test_algorithms_that_update_elsewhere_are_not_probed() -> None:
    fix = [("trainer.probe_every", "trainer.probe_every=null")]
    blocks = ["algorithm=distributed_greedy", "trainer.probe_every=1ep"]
    assert told(*blocks) == fix
    assert told("algorithm=decoupled_greedy", "trainer.probe_every=1ep") == []
    continual = ["model=eqprop_mlp", "algorithm=continual_equilibrium_propagation", "trainer.probe_every=1ep"]
    plain = ["optimizer=sgd", "optimizer.momentum=0"]
    assert told(*continual, *plain, "algorithm.debug=true") == fix
    assert told(*continual, *plain) == []


def test_weights_rules() -> None:
    rule = f"algorithm.weights._target_={HERE}.Halved"
    assert told(by(Plain), rule) == [("algorithm.weights", "algorithm/weights=dense")]
    assert told(by(Plain)) == []
    assert told(rule) == []


@pytest.mark.parametrize("algorithm", ["sequential_greedy", "asynchronous_greedy"])
def test_weights_that_move_by_themselves_do_not_go_with_frozen_blocks(algorithm: str) -> None:
    for rule in ("dynamic_sparse", "set", "rigl", "deep_r", "iterative_pruning", "iterative_binary"):
        fix = [("algorithm.weights", "algorithm/weights=static_sparse")]
        assert told(f"algorithm={algorithm}", f"algorithm/weights={rule}") == fix
        assert told("algorithm=decoupled_greedy", f"algorithm/weights={rule}") == []
    for rule in ("dense", "static_sparse", "tied", "binary"):
        assert told(f"algorithm={algorithm}", f"algorithm/weights={rule}") == []


def test_models_that_an_algorithm_cannot_train() -> None:
    headless = ["~model", f"+model={{_target_: {HERE}.Headless, _partial_: true}}"]
    assert told(by(Blockwise), *headless) == [("model", "model=mlp")]
    assert told(by(Blockwise)) == []
    assert told(*headless) == []
    [(key, fix)] = told(by(Relaxing))
    assert key == "model"
    assert fix.startswith("model=eqprop")
    assert told(by(Relaxing), "model=eqprop_mlp") == []
    assert told("model=eqprop_mlp") == [("model", "model=mlp")]
    assert issubclass(EnergyModel, torch.nn.Module)


def test_hard_units_need_an_estimator() -> None:
    assert told("model/units=sign_step") == [("model.units", "algorithm/estimator=saturated_ste")]
    assert told("model/units=sign_step", "algorithm/estimator=saturated_ste") == []
    assert told("model/units=sign_step", by(Native)) == []
    assert told("model/units=relu", "algorithm/estimator=saturated_ste") == []


def test_an_algorithm_for_hard_units_refuses_smooth_ones() -> None:
    assert told(by(Thresholds)) == [("model.units", "model/units=sign_step")]
    assert told(by(Thresholds), "algorithm/estimator=saturated_ste") == [("model.units", "model/units=sign_step")]
    assert told(by(Thresholds), "model/units=sign_step", "algorithm/estimator=saturated_ste") == []


@pytest.mark.parametrize("option", ["trainer.select_on=validation", "trainer.early_stopping={metric: validation/loss}"])
def test_selection_on_a_split_that_there_is_not(option: str) -> None:
    [(key, fix)] = told(option)
    assert key in ("trainer.select_on", "trainer.early_stopping.metric")
    assert fix == "dataset.validation.size=…"
    assert told(option, "dataset.validation.size=500") == []


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_devices_that_this_machine_has_not(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"cuda": 0, "cuda:7": 7}[device]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert told(f"trainer.device={device}") == [("trainer.device", "trainer.device=auto")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert told(f"trainer.device={device}") == []


def test_tf32_is_refused_where_nothing_would_use_it() -> None:
    assert told("trainer.device=cpu", "trainer.precision=tf32") == [("trainer.precision", "trainer.precision=fp32")]


def test_rules_look_at_what_is_right_even_if_something_else_is_wrong() -> None:
    found = dict(told("optimizer.lr=-1", "model/units=sign_step", "name=${nothing}"))
    assert set(found) == {"name"}  # nothing resolved, nothing compared
    assert set(dict(told("optimizer.lr=-1", "model/units=sign_step"))) == {"optimizer", "model.units"}


def test_the_default_trains_anything_that_is_valid() -> None:
    config: dict[str, Any] = plain_and_valid(compose(["trainer.select_on=test"]))
    assert config["trainer"]["select_on"] == "test"
