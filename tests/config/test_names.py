"""A class has one identity under its public name, the path of its present file and its former path."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import altprop.algorithms
from altprop.commands.entry import entry_point
from altprop.config.build import build
from altprop.config.checks.targets import locate
from altprop.config.checks.validation import plain_and_valid, problems_of_plain
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.names import ALIASES, class_of, definitions, key_name, public_name
from altprop.training.run import train

PUBLIC_NAMES = sorted(set(ALIASES.values()))
FORMER_PATHS = {public: former for former, public in ALIASES.items()}


def present_path(public: str) -> str:
    """The dotted path of the file that defines the class now."""
    package, _, name = public.rpartition(".")
    [module] = definitions(package)[name]
    return f"{module}.{name}"


def former_path(public: str) -> str:
    return FORMER_PATHS.get(public, public)


def renamed(config: Any, spelling: Callable[[str], str]) -> Any:
    """A copy of the plain ``config`` with another spelling of every ``_target_``, in nested nodes and lists, too."""
    if isinstance(config, Mapping):
        return {
            name: spelling(value) if name == "_target_" and value.startswith("altprop.") else renamed(value, spelling)
            for name, value in config.items()
        }
    return [renamed(value, spelling) for value in config] if isinstance(config, list) else config


@pytest.mark.parametrize("public", PUBLIC_NAMES)
def test_every_spelling_is_the_same_class(public: str) -> None:
    spellings = {public, present_path(public), former_path(public)}
    assert {public_name(path) for path in spellings} == {public}
    assert {key_name(path) for path in spellings} == {former_path(public)}
    [target] = {locate(path) for path in spellings}
    assert target is not None
    assert f"{target.__module__}.{target.__qualname__}" == present_path(public)
    assert len({class_of({"_target_": path}) for path in spellings}) == 1


@pytest.mark.parametrize("public", PUBLIC_NAMES)
def test_every_spelling_gives_the_same_key_at_any_depth(public: str) -> None:
    def key(path: str) -> str:
        node = {"_target_": path, "size": 3}
        return run_key({"model": {**node, "units": node, "heads": [{"head": node}]}, "seed": 0})

    assert key(public) == key(present_path(public)) == key(former_path(public))
    assert key(public) != key(f"{public}2")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'altprop\.algorithms' has no attribute 'Backprp': no file of it defines one"):
        altprop.algorithms.Backprp  # noqa: B018


EXAMPLES = {
    "nested rules": ["algorithm/weights=dynamic_sparse"],
    "head and units": ["algorithm=decoupled_greedy", "model/units=sign_step", "algorithm/estimator=saturated_ste"],
    "targets": ["algorithm=target_propagation", "model/units=sign_step", "algorithm/loss=squared_hinge"],
    "energy": ["algorithm=equilibrium_propagation", "model=eqprop_mlp", "optimizer=sgd"],
    "schedule": ["schedule=piecewise", "logger=console"],
}


@pytest.mark.parametrize("overrides", EXAMPLES.values(), ids=EXAMPLES)
def test_whole_configurations(overrides: list[str]) -> None:
    """Every spelling of a configuration has the same run key, is valid and builds the same objects."""
    plain = plain_and_valid(compose(overrides))
    expected, _ = build(OmegaConf.create(plain))
    for spelling in (former_path, present_path):
        other = renamed(plain, spelling)
        assert other != plain
        assert run_key(other) == run_key(plain)
        assert problems_of_plain(other) == []
        parts, _ = build(OmegaConf.create(other))
        for name in ("data_set", "model_factory", "algorithm", "schedule", "trackers"):
            assert structure(getattr(parts, name)) == structure(getattr(expected, name))


def structure(value: Any) -> Any:
    """The classes of ``value`` and, recursively, of the attributes of its classes that altprop defines."""
    if isinstance(value, dict):
        return {name: structure(child) for name, child in value.items()}
    if isinstance(value, functools.partial):
        return value.func, structure(value.keywords)
    if not type(value).__module__.startswith("altprop."):
        return type(value)
    return type(value), structure(dict(getattr(value, "__dict__", {})))


@pytest.mark.parametrize("spelling", [former_path, present_path])
def test_a_run_stored_with_other_paths_resumes(
    spelling: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``run=`` of a run that was stopped after one epoch and whose ``config.yaml`` has other paths trains the second epoch."""
    tiny = ["trainer.duration=2ep", "trainer.limit_batches=2", "trainer.figures=false", "model.hidden=[8]", "trainer.device=cpu"]
    overrides = ["algorithm/weights=dynamic_sparse", *tiny, "~logger", f"paths.outputs={tmp_path}"]
    parts, _ = build(compose(overrides))
    epoch_start = parts.algorithm.epoch_start

    def stop_after_one_epoch(epoch: int) -> None:
        if epoch == 1:
            raise ValueError("stopped")
        epoch_start(epoch)

    monkeypatch.setattr(parts.algorithm, "epoch_start", stop_after_one_epoch)
    with pytest.raises(ValueError, match="stopped"):
        train(parts)
    file = parts.directory / "config.yaml"
    stored = OmegaConf.to_container(OmegaConf.load(file))
    other = renamed(stored, spelling)
    assert other != stored
    OmegaConf.save(other, file)

    summaries: list[Any] = []

    def run(config: Any) -> None:
        resumed, _ = build(config)
        assert (resumed.key, resumed.directory) == (parts.key, parts.directory)
        summaries.append(train(resumed))

    monkeypatch.setattr(sys, "argv", ["train.py", f"run={parts.directory}"])
    entry_point("train", run)
    [summary] = summaries
    assert summary["status"] == "done"
    lines = (parts.directory / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert "resum" in (parts.directory / "train.log").read_text()
