"""Every experiment and every sweep has the agreed form, composes and is valid."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator

import pytest
from omegaconf import DictConfig

from altprop.config.compose import Composer, config_loader
from altprop.config.schema import PaperConfig
from altprop.config.validation import problems_of
from tests.config.catalogue import EXPERIMENTS, SWEEPS, content, jobs, of_the_configuration, sweep_params, without_hydra


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with config_loader() as composer:
        yield composer


def command_of(lines: list[str]) -> list[str]:
    """The arguments of the command in a file's second line; the first is for Hydra."""
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# python train.py ")
    return shlex.split(lines[1].removeprefix("# python train.py "), comments=True)


def problems(config: DictConfig) -> list[str]:
    return [str(problem) for problem in of_the_configuration(problems_of(without_hydra(config)))]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name: str, composer: Composer) -> None:
    lines, said = content("experiment", name)
    command = command_of(lines)
    assert command[0] == f"experiment={name}"
    assert said["name"] == name
    assert "hydra" not in said, "what is under hydra: is ignored when experiments are swept; it belongs into a sweep"
    config = composer.compose("train", command)
    assert config.name == name
    is_no_row = "quick" in name or name.startswith("baseline/") or said.get("paper", "inherited") is None
    if not is_no_row:
        assert config.paper is not None, "a row of a paper carries the paper's number, null where it was not found"
        assert set(said.get("paper", config.paper)) <= {field.name for field in dataclasses.fields(PaperConfig)}
        assert all(config.paper[field.name] != "???" for field in dataclasses.fields(PaperConfig))
    assert problems(config) == []


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep(name: str, composer: Composer) -> None:
    lines, said = content("sweep", name)
    assert command_of(lines)[:2] == ["-m", f"sweep={name}"]
    assert said["group"] == name
    assert said["hydra"]["mode"] == "MULTIRUN"
    assert sweep_params(name)
    wrong = {job: found for job, config in jobs(name, composer) if (found := problems(config))}
    assert wrong == {}


def test_there_are_experiments() -> None:
    assert "baseline/mnist_mlp" in EXPERIMENTS
