"""A fixed sample of the values that ``python -m tests.tools.bad_values`` generates, and all values that were once accepted."""

from __future__ import annotations

import copy
import itertools

import pytest
from omegaconf import DictConfig

from altprop.commands.calls import call_validate
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from tests.tools.bad_values import (
    TINY,
    Case,
    node_cases,
    reason_for,
    set_value,
    setting_cases,
    takes_the_whole_command,
    tried,
    wrong_keys,
)

BASE = tuple(text for text in TINY if text != "~logger")
ONCE_ACCEPTED = {
    "dataset.validation.size=nan": "dataset.validation.size",
    "optimizer._partial_=maybe": "optimizer._partial_",
    "seed=-1": "seed",
    "trainer.clip_norm=nan": "trainer.clip_norm",
    "trainer.threads=100000": "trainer.threads",
    "trainer.clip_norm=1e30": "trainer.clip_norm",
    "trainer.compile=100000": "trainer.compile",
    "trainer.figures=yes": "trainer.figures",
    "cluster.warm=1": "cluster.warm",
    "resume=0": "resume",
    "trust_run=maybe": "trust_run",
    "trainer.channels_last=1": "trainer.channels_last",
    "optimizer.lr=100000": "optimizer.lr",
    "trainer.early_stopping={min_delta:nan}": "trainer.early_stopping.min_delta",
    "dataset.mean=[nan]": "dataset.mean",
    "dataset.std=[inf]": "dataset.std",
    "dataset.std=[]": "dataset.std",
    "dataset.batch_size=99999999999999999999": "dataset.batch_size",
    "optimizer.lr=inf": "optimizer.lr",
    "optimizer.weight_decay=-inf": "optimizer.weight_decay",
    "model.hidden=[0]": "model.hidden",
    "model.hidden=[[1]]": "model.hidden",
    "model.linear_bias_init={_target_:torch.nn.ReLU}": "model.linear_bias_init",
    "model._target_=torch.nn.ReLU": "model._target_",
    "algorithm.estimator=saturated_ste": "algorithm.estimator",
    "model.units=relu": "model.units",
    "algorithm.weights=binary": "algorithm.weights",
    "cluster.time=0": "cluster.time",
    "resources.nodes=-1": "resources.nodes",
    "tags=['']": "tags",
}
"""Override -> the key that the message begins with."""
TEXTS = ("name", "group", "run", "tags", "paths.", "paper.", "cluster.", "trainer.d", "trainer.select_on")
"""Beginnings of keys that take any text."""


@pytest.fixture(scope="module")
def base() -> DictConfig:
    return compose(BASE)


def test_no_value_of_the_sample_leads_to_a_traceback_a_crash_or_a_hang(base: DictConfig) -> None:
    """Values of the wrong type for the optimizer and the settings: all are refused, so that no run starts."""
    known = frozenset(map(str, problems_of(base)))
    cases = [*node_cases("optimizer", BASE, set()), *itertools.islice(setting_cases(BASE), 0, None, 7)]
    refused = [case for case in cases if case.override.endswith(("=nan", "=[nan]", "=99999999999999999999", "=[[1]]"))]
    quick = [
        case for case in refused if not case.override.startswith(("optimizer=", *TEXTS)) and not takes_the_whole_command(case)
    ]
    outcomes = [tried(case, base, known) for case in quick[::4][:12]]
    assert len(outcomes) == 12
    assert [(outcome.case.override, outcome.text) for outcome in outcomes if outcome.verdict != "refused"] == []


def test_values_that_were_accepted_are_refused_in_one_line(base: DictConfig) -> None:
    refused = {}
    for override in ONCE_ACCEPTED:
        config = copy.deepcopy(base)
        set_value(config, override)
        [line] = map(str, problems_of(config))
        refused[override] = line.partition(":")[0]
        assert "\n" not in line
    assert refused == ONCE_ACCEPTED


def test_a_dot_in_the_path_of_a_group_has_a_hint_of_its_own() -> None:
    [problem] = problems_of(compose(["model/units=sign_step", "algorithm.estimator=saturated_ste"]))
    assert problem.fix == "algorithm/estimator=saturated_ste"


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["algorithm=decoupled_greedy", "algorithm.head.conv_layers=abc"], "algorithm.head.conv_layers: abc does not fit"),
        (["model=dni_cnn", "model.width=0"], "model.width: 0 does not fit"),
        (["model=greedy_cnn", "model.depth=100000000"], "model.depth: 100000000 does not fit"),
        (["model=greedy_cnn", "model.head_layers=-1"], "model.head_layers: -1 does not fit"),
        (["model=units/selu"], "model._target_: SELU takes no input_shape"),
        (["algorithm._target_=torch.nn.ReLU"], "algorithm._target_: torch.nn.ReLU is not an Algorithm"),
        (["algorithm=decoupled_greedy", "+algorithm.head.num_classes=3"], "algorithm.head.num_classes: is supplied by altprop"),
        (
            ["algorithm=decoupled_greedy", "algorithm/head=mlp", "+algorithm.head.units={_target_:torch.nn.ReLU}"],
            "algorithm.head.units._partial_: must",
        ),
        (["algorithm=backprop_through_time", "model=eqprop_mlp", "algorithm.free_steps=100000"], "algorithm.free_steps: 100000"),
        (
            ["optimizer=rmsprop", "optimizer.alpha=100000"],
            "optimizer.alpha: 100000 does not fit; it must be a number from 0 to 1",
        ),
        (
            ["optimizer=other", "optimizer._target_=torch.optim.Rprop", "+optimizer.etas=[2,0.5]"],
            "optimizer.etas: [2,0.5] does not fit",
        ),
        (["schedule=cosine", "schedule.scheduler.eta_min=1"], "schedule.scheduler.eta_min: 1 is above the highest rate, 0.001"),
        (["schedule=plateau", "schedule.scheduler.min_lr=10"], "schedule.scheduler.min_lr: 10 is above the highest rate, 0.001"),
        (["schedule=onecycle", "schedule.scheduler.max_lr=2000"], "schedule.scheduler.max_lr: 2000 does not fit"),
        (["algorithm.loss.label_smoothing=nan"], "algorithm.loss.label_smoothing: nan does not fit"),
    ],
)
def test_values_of_other_choices_that_ended_in_a_traceback_or_were_accepted(overrides: list[str], start: str) -> None:
    [line] = map(str, problems_of(compose([*BASE, *overrides])))
    assert line.startswith(start)
    assert "altprop.algorithms.base" not in line


def test_arguments_that_a_command_deletes_have_their_defaults() -> None:
    overrides = ["algorithm=equilibrium_propagation", "model=eqprop_mlp", "~algorithm.beta"]
    assert problems_of(compose([*BASE, *overrides])) == []


def test_what_hydra_itself_cannot_compose_is_one_line_each() -> None:
    problems = call_validate([*BASE, "algorithm=[0]", "trainer.clip_norm=none"])
    assert {problem.key: problem.fix for problem in problems} == {"algorithm": "", "trainer.clip_norm": "trainer.clip_norm=null"}


def test_accepted_values_have_a_reason_or_are_nonsense() -> None:
    assert reason_for("cluster.account=1")
    assert reason_for("~schedule.scheduler.start_factor")
    assert not any(map(reason_for, ("trainer.compile=100000", "optimizer.lr=nan", "model.hidden=[0]", "metrics.top5.k=100000")))


def test_the_generator_misspells_keys() -> None:
    assert {"model.hidde=1", "+model.hiddenx=1", "~model.hidden"} <= set(wrong_keys("model", ["_target_", "hidden"]))
    assert Case((), "a=1").command == "train"
