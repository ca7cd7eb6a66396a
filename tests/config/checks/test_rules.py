from typing import Any, ClassVar

import pytest
import torch

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Capabilities
from altprop.config.checks.validation import plain_and_valid, problems_of
from altprop.config.compose import compose
from altprop.models.energy import EnergyModel
from altprop.nn.weights.base import WeightsRule

HERE = "tests.config.checks.test_rules"


class Plain(Algorithm):
    """Supports no options."""

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


def refusals(*overrides: str) -> list[tuple[str, str]]:
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
    assert refusals(by(Plain), f"trainer.{option}") == [(key, f"{key}={off}")]
    assert refusals(f"trainer.{option}") == []


def test_algorithms_that_update_in_other_processes_or_phases_are_not_probed() -> None:
    fix = [("trainer.probe_every", "trainer.probe_every=null")]
    blocks = ["algorithm=distributed_greedy", "trainer.probe_every=1ep"]
    assert refusals(*blocks) == fix
    assert refusals("algorithm=decoupled_greedy", "trainer.probe_every=1ep") == []
    continual = ["model=eqprop_mlp", "algorithm=continual_equilibrium_propagation", "trainer.probe_every=1ep"]
    plain = ["optimizer=sgd", "optimizer.momentum=0"]
    assert refusals(*continual, *plain, "algorithm.debug=true") == fix
    assert refusals(*continual, *plain) == []


def test_weights_rules() -> None:
    rule = f"algorithm.weights._target_={HERE}.Halved"
    assert refusals(by(Plain), rule) == [("algorithm.weights", "algorithm/weights=dense")]
    assert refusals(by(Plain)) == []
    assert refusals(rule) == []


@pytest.mark.parametrize("algorithm", ["sequential_greedy", "asynchronous_greedy"])
def test_rules_that_change_weights_outside_of_updates_are_refused_with_frozen_blocks(algorithm: str) -> None:
    for rule in ("dynamic_sparse", "set", "rigl", "deep_r", "iterative_pruning", "iterative_binary"):
        fix = [("algorithm.weights", "algorithm/weights=static_sparse")]
        assert refusals(f"algorithm={algorithm}", f"algorithm/weights={rule}") == fix
        assert refusals("algorithm=decoupled_greedy", f"algorithm/weights={rule}") == []
    for rule in ("dense", "static_sparse", "tied", "binary"):
        assert refusals(f"algorithm={algorithm}", f"algorithm/weights={rule}") == []


def test_models_that_an_algorithm_cannot_train() -> None:
    headless = ["~model", f"+model={{_target_: {HERE}.Headless, _partial_: true}}"]
    assert refusals(by(Blockwise), *headless) == [("model", "model=mlp")]
    assert refusals(by(Blockwise)) == []
    assert refusals(*headless) == []
    [(key, fix)] = refusals(by(Relaxing))
    assert key == "model"
    assert fix.startswith("model=eqprop")
    assert refusals(by(Relaxing), "model=eqprop_mlp") == []
    assert refusals("model=eqprop_mlp") == [("model", "model=mlp")]
    assert issubclass(EnergyModel, torch.nn.Module)


def test_hard_units_need_an_estimator() -> None:
    assert refusals("model/units=sign_step") == [("model.units", "algorithm/estimator=saturated_ste")]
    assert refusals("model/units=sign_step", "algorithm/estimator=saturated_ste") == []
    assert refusals("model/units=sign_step", by(Native)) == []
    assert refusals("model/units=relu", "algorithm/estimator=saturated_ste") == []


def test_an_algorithm_for_hard_units_refuses_smooth_ones() -> None:
    assert refusals(by(Thresholds)) == [("model.units", "model/units=sign_step")]
    assert refusals(by(Thresholds), "algorithm/estimator=saturated_ste") == [("model.units", "model/units=sign_step")]
    assert refusals(by(Thresholds), "model/units=sign_step", "algorithm/estimator=saturated_ste") == []


@pytest.mark.parametrize("option", ["trainer.select_on=validation", "trainer.early_stopping={metric: validation/loss}"])
def test_selection_on_a_missing_split_is_refused(option: str) -> None:
    [(key, fix)] = refusals(option)
    assert key in ("trainer.select_on", "trainer.early_stopping.metric")
    assert fix == "dataset.validation.size=…"
    assert refusals(option, "dataset.validation.size=500") == []


@pytest.mark.parametrize("option", ["trainer.select_on=test", "trainer.early_stopping={metric: test/loss}"])
def test_selection_on_a_test_split_that_is_not_evaluated_is_refused(option: str) -> None:
    for when in ("end", "never"):
        [(key, fix)] = refusals(option, f"trainer.evaluate_test={when}")
        assert key in ("trainer.select_on", "trainer.early_stopping.metric")
        assert fix == "trainer.evaluate_test=always"


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_devices_that_this_machine_lacks_are_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"cuda": 0, "cuda:7": 7}[device]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert refusals(f"trainer.device={device}") == [("trainer.device", "trainer.device=auto")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert refusals(f"trainer.device={device}") == []


def test_tf32_is_refused_without_a_cuda_device() -> None:
    assert refusals("trainer.device=cpu", "trainer.precision=tf32") == [("trainer.precision", "trainer.precision=fp32")]


def test_cuda_graphs_are_refused_without_a_cuda_device() -> None:
    assert refusals("trainer.device=cpu", "trainer.cuda_graph=true") == [("trainer.cuda_graph", "trainer.cuda_graph=false")]


CYCLE = "schedule.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 0.1, total_steps: total}"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([], None),
        (["algorithm/weights=static_sparse", "optimizer=sgd"], None),
        (["algorithm=decoupled_greedy", "model=convnet", "trainer.precision=bf16", "trainer.accumulate=1"], None),
        (["algorithm=target_propagation", "model/units=sign_step"], None),
        (["algorithm=equilibrium_propagation", "model=eqprop_mlp"], None),
        (["schedule=cosine"], None),
        (["algorithm=sequential_greedy"], "trainer.cuda_graph"),
        (["algorithm=feedback_alignment"], "trainer.cuda_graph"),
        (["algorithm=continual_equilibrium_propagation", "model=eqprop_mlp"], "trainer.cuda_graph"),
        (["algorithm=equilibrium_propagation", "model=eqprop_mlp", "algorithm.tolerance=1e-6"], "algorithm.tolerance"),
        (["algorithm=equilibrium_propagation", "model=eqprop_mlp", "algorithm.free_start=previous"], "algorithm.free_start"),
        (["algorithm/weights=rigl"], "trainer.cuda_graph"),
        (["trainer.compile=true"], "trainer.cuda_graph"),
        (["trainer.precision=fp16"], "trainer.cuda_graph"),
        (["resources.processes=2"], "trainer.cuda_graph"),
        (["optimizer=rmsprop"], "optimizer._target_"),
        (["+optimizer.fused=false"], "optimizer.fused"),
        (["+optimizer.foreach=true"], "optimizer.foreach"),
        (["optimizer=sgd", "schedule.interval=step", CYCLE], "schedule.scheduler"),
    ],
)
def test_what_a_cuda_graph_cannot_capture_is_refused(
    overrides: list[str], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert [problem for problem, _ in refusals("trainer.cuda_graph=true", *overrides)] == [key] * (key is not None)


def test_rules_check_valid_nodes_even_if_another_key_is_wrong() -> None:
    unresolved = dict(refusals("+optimizer.foreach=true", "+optimizer.fused=true", "model/units=sign_step", "name=${nothing}"))
    assert set(unresolved) == {"name"}  # rules need a resolved configuration
    both = dict(refusals("+optimizer.foreach=true", "+optimizer.fused=true", "model/units=sign_step"))
    assert set(both) == {"optimizer", "model.units"}


def test_selection_on_the_test_split_is_allowed() -> None:
    config: dict[str, Any] = plain_and_valid(compose(["trainer.select_on=test"]))
    assert config["trainer"]["select_on"] == "test"
