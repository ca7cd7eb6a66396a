"""The jobs of a grid are the command line with one value in place of each list; nothing that was typed is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from altprop.commands.messages.command_line import CompositionError
from altprop.config.compose import Composer, JobComposer, config_loader
from altprop.problems import ConfigError
from altprop.sweeping.grid import jobs, written

TYPED = (
    "optimizer=sgd",
    "optimizer=rmsprop",
    "optimizer={lr:0.5}",
    "optimizer={lr:0.25,momentum:0.5}",
    "optimizer.lr=0.1",
    "optimizer.lr=0.2",
    "+optimizer.nesterov=true",
    "++optimizer.momentum=0.3",
    "~optimizer.momentum",
    "optimizer.momentum=0",
    "model=mlp",
    "model={hidden:[7]}",
    "model.hidden=[3,4]",
    "model.hidden.0=9",
    "~logger",
    "trainer.early_stopping={patience:3}",
    "trainer.early_stopping=null",
    "name='a b, c'",
    "name=x${seed}",
    "tags=[a,'b c']",
    "seed=int(3.0)",
    "paper=null",
)


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with config_loader() as loader:
        yield loader


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(TYPED), min_size=2, max_size=5))
@example(["optimizer=sgd", "optimizer={lr:0.5}"])
@example(["model={hidden:[7]}", "model=mlp"])
@example(["optimizer.lr=0.1", "optimizer={lr:0.5}", "optimizer.lr=0.2"])
@example(["model.hidden=[3,4]", "model.hidden.0=9", "model={hidden:[7]}"])
@example(["~optimizer.momentum", "optimizer=sgd", "+optimizer.momentum=1"])
def test_a_sweep_of_one_combination_equals_the_single_run(composer: Composer, typed: list[str]) -> None:
    [job] = jobs(composer.loader, (), typed)
    try:
        single = composer.compose("train", typed)
    except CompositionError as error:
        with pytest.raises(type(error)):
            JobComposer(composer.loader, composer.compose("train", [], multirun=True)).compose(job)
        return
    swept = JobComposer(composer.loader, composer.compose("train", typed, multirun=True)).compose(job)
    for key in swept:
        expected = OmegaConf.to_container(single)[key]  # type: ignore[index,call-overload]
        assert OmegaConf.to_container(swept)[key] == expected, key  # type: ignore[index,call-overload]


def test_a_list_of_values_is_the_only_thing_that_changes(composer: Composer) -> None:
    assert jobs(composer.loader, (), ["dataset={batch_size:50}", "seed=0,1", "dataset={limit_train:150}", "~logger"]) == [
        ["dataset={batch_size:50}", f"seed={seed}", "dataset={limit_train:150}", "~logger"] for seed in (0, 1)
    ]
    assert jobs(composer.loader, (), ["optimizer={lr:0.1},{lr:0.2}", "optimizer=sgd"]) == [
        [f"optimizer={{lr:{rate}}}", "optimizer=sgd"] for rate in (0.1, 0.2)
    ]


def test_what_is_typed_replaces_params_of_the_same_key(composer: Composer) -> None:
    params = ["model=mlp,convnet", "seed=0,1,2", "+tags=[x]"]
    assert jobs(composer.loader, params, ["seed=4", "model=mlp", "+tags=[y]"]) == [["seed=4", "model=mlp", "+tags=[y]"]]
    assert jobs(composer.loader, params, ["seed=4", "model={hidden:[7]}"]) == [
        [f"model={model}", "+tags=[x]", "seed=4", "model={hidden:[7]}"] for model in ("mlp", "convnet")
    ]
    assert jobs(composer.loader, (), ["seed=0,1", "seed=2"]) == [["seed=2"]]


@pytest.mark.parametrize(
    ("second", "fix"),
    [("seed=2,3", "seed=0,1,2,3"), ("seed=range(2,4)", "seed=range(2,4)"), ("seed=choice(2,3)", "seed=choice(2,3)")],
)
def test_two_lists_of_one_key_are_refused(composer: Composer, second: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs(composer.loader, (), ["seed=0,1", "model=mlp,convnet", second])
    [problem] = caught.value.problems
    assert str(problem) == f"seed: seed=0,1 and {second} are two lists of values; one list; try: {fix}"


def test_params_are_written_as_one_types_them() -> None:
    assert [written(value) for value in (None, True, 0.1, "0,1", [16, None], {"lr": 0.1})] == [
        "null",
        "True",
        "0.1",
        "0,1",
        "[16,null]",
        "{lr:0.1}",
    ]


def test_glob_finds_choices_in_folders(composer: Composer) -> None:
    experiments = {job[0] for job in jobs(composer.loader, (), ["experiment=glob(eqprop/quick_*)"])}
    assert experiments
    assert all(experiment.startswith("experiment=eqprop/quick_") for experiment in experiments)
    models = {job[0] for job in jobs(composer.loader, (), ["model=glob([mlp*,vgg1*],exclude=*_bn)"])}
    assert {"model=mlp", "model=vgg11"} <= models
    assert not any("/" in model or model.endswith("_bn") for model in models)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=range(3,1)", "seed: range(3,1) stands for no value; at least one value"),
        ("seed=range(0,1e9)", "seed: range(0,1e9) has 1,000,000,000 values; at most 10,000; try: seed=range(0,10)"),
        ("seed=range(0,inf)", "seed: range(0,inf) has endlessly many values; at most 10,000"),
        ("seed=range(0,inf,-1)", "seed: range(0,inf,-1) stands for no value"),
        ("seed=range(nan,3)", "seed: range(nan,3) has no values; numbers and a step other than 0"),
        ("seed=int(range(0,1,0.3))", "seed: int(range(0,1,0.3)) has no values; numbers and a step other than 0"),
        ("experiment=glob(ftprop/nothing_*)", "experiment: glob(ftprop/nothing_*) stands for no value; choices: baseline/"),
        ("model=glob(x*)", "model: glob(x*) stands for no value; choices: "),
        (
            "sweep=quick/hard_units,quick/graded_units",
            "try: python train.py -m sweep=quick/hard_units; python train.py -m sweep=",
        ),
        ("paths.outputs=a,b", "it applies to a whole sweep, so it takes one"),
        ("resources=cpu,gpu", "it applies to a whole sweep, so it takes one"),
    ],
)
def test_a_sweep_of_nothing_or_of_sweeps_is_refused(composer: Composer, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs(composer.loader, (), [override, "tags=[]"])
    [problem] = caught.value.problems
    assert message in str(problem)


def test_too_many_runs_are_refused_before_they_are_listed(composer: Composer) -> None:
    with pytest.raises(ConfigError, match=r"^seed, model: 18,000 runs \(9,000 x 2 values\); at most 10,000 runs in a sweep"):
        jobs(composer.loader, (), ["seed=range(0,9000)", "model=mlp,convnet"])


def test_a_grid_takes_no_ranges_of_real_numbers(composer: Composer) -> None:
    with pytest.raises(HydraException, match="does not support sweep type"):
        jobs(composer.loader, (), ["optimizer.lr=interval(0,1)"])
