"""Every experiment and every sweep has the agreed form, composes, is valid and resolves to its stored configuration."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import DictConfig

from altprop.config.checks.validation import problems_of
from altprop.config.compose import Composer, config_loader
from altprop.config.key import run_key
from altprop.config.schema import PaperConfig
from tests.config.catalog import EXPERIMENTS, SWEEPS, content, jobs, of_the_configuration, sweep_params, without_hydra
from tests.config.store import changes, choice_entries, choices, flat, read, resolved

EXPERIMENT_ENTRIES, SWEEP_ENTRIES, CHOICE_ENTRIES = read("experiments"), read("sweeps"), read("choices")
DEFAULT, CHOICES = read("default"), choices()


def test_every_stored_entry_still_has_its_file() -> None:
    """A new file needs no entry until ``make store`` adds it, but a stored one cannot go or be renamed unnoticed."""
    for stored, files in ((EXPERIMENT_ENTRIES, EXPERIMENTS), (SWEEP_ENTRIES, SWEEPS), (CHOICE_ENTRIES, CHOICES)):
        assert set(stored) <= set(files)


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with config_loader() as composer:
        yield composer


def at_stored_places(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration with the paths of the stored ones."""
    config = without_hydra(config)
    config.paths.data, config.paths.outputs = "/data", "/outputs"
    return resolved(config)


def command_of(lines: list[str]) -> list[str]:
    """The arguments of the command in the second line of a file; the first line is Hydra's."""
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# python train.py ")
    return shlex.split(lines[1].removeprefix("# python train.py "), comments=True)


def problems(config: DictConfig) -> list[str]:
    return [str(problem) for problem in of_the_configuration(problems_of(without_hydra(config)))]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name: str, composer: Composer) -> None:
    lines, values = content("experiment", name)
    command = command_of(lines)
    assert command[0] == f"experiment={name}"
    assert values["name"] == name
    assert "hydra" not in values, "hydra: is ignored when experiments are swept; it belongs in a sweep"
    config = composer.compose("train", command)
    assert config.name == name
    is_no_row = "quick" in name or name.startswith("baseline/") or values.get("paper", "inherited") is None
    if not is_no_row:
        assert config.paper is not None, "a row of a paper has the published number, or null if it was not found"
        assert set(values.get("paper", config.paper)) <= {field.name for field in dataclasses.fields(PaperConfig)}
        assert all(config.paper[field.name] != "???" for field in dataclasses.fields(PaperConfig))
    assert problems(config) == []
    if len(command) > 1:
        config = composer.compose("train", [f"experiment={name}"])
    current = at_stored_places(config)
    if name in EXPERIMENT_ENTRIES:
        stored = EXPERIMENT_ENTRIES[name]
        assert changes(flat(current), DEFAULT) == stored["changes"]
        assert run_key(current) == stored["key"]


@pytest.mark.parametrize("name", CHOICES)
def test_choice(name: str, composer: Composer) -> None:
    """The default configuration with one choice changed composes, and resolves to its stored entry if it has one."""
    entry = dict(choice_entries(composer, [name]))[name]
    assert entry == CHOICE_ENTRIES.get(name, entry)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep(name: str, composer: Composer) -> None:
    lines, values = content("sweep", name)
    assert command_of(lines)[:2] == ["-m", f"sweep={name}"]
    assert values["group"] == name
    assert values["hydra"]["mode"] == "MULTIRUN"
    assert sweep_params(name)
    wrong, keys = {}, {}
    for job, config in jobs(name, composer):
        if messages := problems(config):
            wrong[job] = messages
        keys[job] = run_key(at_stored_places(config))
    assert wrong == {}
    assert keys == SWEEP_ENTRIES.get(name, keys)


def test_there_are_experiments() -> None:
    assert "baseline/mnist_mlp" in EXPERIMENTS
