from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import Container, OmegaConf, open_dict

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.schedule import Schedule
from altprop.commands.entry import entry_point
from altprop.config.build import build, build_parts
from altprop.config.checks.validation import plain_and_valid
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.problems import ConfigError
from altprop.training.parts import Parts


def everything(value: Any, seen: set[int]) -> Iterator[Any]:
    """``value`` and every object reachable from it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    children: list[Any] = []
    if isinstance(value, Mapping):
        children += value.values()
    elif isinstance(value, (list, tuple)):
        children += value
    if callable(value) and hasattr(value, "keywords"):
        children += [value.args, value.keywords]
    if type(value).__module__.startswith("altprop"):
        children += vars(value).values() if hasattr(value, "__dict__") else []
    for child in children:
        yield from everything(child, seen)


def parts_of(*overrides: str) -> Parts:
    parts, _ = build(compose(overrides))
    return parts


def test_every_part_is_built() -> None:
    parts = parts_of("seed=3", "tags=[a]", "trainer.early_stopping={metric: train/loss, patience: 2}", "schedule=cosine")
    assert isinstance(parts.algorithm, Backprop)
    assert isinstance(parts.schedule, Schedule)
    assert hasattr(parts.data_set, "load")
    model = parts.model_factory(input_shape=(1, 4, 4), num_classes=3)
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    assert isinstance(parts.optimizer_factory(model.parameters()), torch.optim.Adam)
    assert list(parts.trackers) == ["console"]
    assert parts.settings.early_stopping is not None
    assert parts.settings.early_stopping.patience == 2
    assert (parts.seed, parts.tags, parts.name, parts.group) == (3, ("a",), "scratch", "scratch")
    assert parts.directory == parts.outputs / "scratch" / parts.key


def test_null_switches_a_tracker_off() -> None:
    assert list(parts_of("logger=tensorboard", "logger.tensorboard=null").trackers) == ["console"]
    assert list(parts_of("logger.console=null").trackers) == []
    assert list(parts_of("~logger").trackers) == []


def test_no_part_contains_a_config_object() -> None:
    parts = parts_of("schedule=piecewise", "optimizer=sgd")
    reached = [value for field in fields(parts) for value in everything(getattr(parts, field.name), set())]
    assert len(reached) > 50
    assert [value for value in reached if isinstance(value, Container)] == []


def test_the_stored_text_is_the_configuration() -> None:
    parts = parts_of()
    stored = OmegaConf.to_container(OmegaConf.create(parts.config_text))
    assert stored == parts.config
    assert run_key(stored) == parts.key


def test_a_value_that_a_constructor_refuses_is_a_problem() -> None:
    config = compose()
    with open_dict(config):
        config.dataset = {"_target_": "tests.config.checks.targets.Picky", "rate": -1.0}
    with pytest.raises(ConfigError) as raised:
        build(config)
    assert [str(problem) for problem in raised.value.problems] == ["dataset: rate must not be negative; see its file in conf/"]


def test_a_target_that_hydra_refuses_is_a_problem() -> None:
    plain = plain_and_valid(compose())
    plain["dataset"] = {"_target_": "os.kill", "pid": 0}
    with pytest.raises(ConfigError) as raised:
        build_parts(plain)
    assert raised.value.problems[0].key == "dataset"


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    parts = parts_of(f"paths.outputs={tmp_path}", "name=a/b", "seed=7")
    parts.directory.mkdir(parents=True)
    (parts.directory / "config.yaml").write_text(parts.config_text)
    return parts.directory


def restore(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Parts:
    """The parts that the command line builds."""
    built: list[Parts] = []
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])

    def run(config: Any) -> None:
        built.append(build(config)[0])

    entry_point("train", run)
    return built[0]


def test_a_run_resumes_with_its_stored_configuration(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = restore(monkeypatch, f"run={run_directory}", "trainer.device=cpu", "~logger")
    assert parts.directory == run_directory
    assert (parts.seed, parts.name) == (7, "a/b")
    assert parts.settings.device == "cpu"
    assert dict(parts.trackers) == {}


def test_a_run_of_an_older_version_resumes(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_directory / "config.yaml"
    stored = OmegaConf.load(file)
    for added in ("probe_every", "keep_epochs", "evaluate_test"):  # do not change what a run computes
        del stored.trainer[added]
    OmegaConf.save(stored, file)
    parts = restore(monkeypatch, f"run={run_directory}")
    assert (parts.directory, parts.settings.probe_every, parts.settings.keep_epochs) == (run_directory, None, [])
    del stored.trainer["clip_norm"]
    renamed = run_directory.with_name(run_key(OmegaConf.to_container(stored)))
    run_directory.rename(renamed)
    OmegaConf.save(stored, renamed / "config.yaml")
    with pytest.raises(SystemExit):
        restore(monkeypatch, f"run={renamed}")
    [line] = capsys.readouterr().err.splitlines()
    assert "is a run of another version: trainer.clip_norm missing" in line


def test_a_moved_tree_of_runs_still_works(run_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    elsewhere.mkdir()
    (run_directory.parents[1]).rename(elsewhere / "a")
    parts = restore(monkeypatch, f"run={elsewhere / 'a' / 'b' / run_directory.name}")
    assert parts.outputs == elsewhere


@pytest.mark.parametrize("override", ["seed=3", "model=convnet", "trainer.precision=bf16"])
def test_keys_that_change_the_run_are_refused(
    override: str, run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        restore(monkeypatch, f"run={run_directory}", override)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"{override.partition('=')[0]}: is fixed by the run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a run: it has no config.yaml"),
        ("a: [", "cannot be read"),
        ("- a", "is not the configuration of a run"),
        ("seed: 1", "missing"),
    ],
)
def test_a_directory_that_is_not_a_run(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        restore(monkeypatch, f"run={tmp_path}")
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("run: ")
    assert message in line


def test_a_changed_configuration_is_refused(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_directory / "config.yaml"
    file.write_text(file.read_text().replace("seed: 7", "seed: 8"))
    with pytest.raises(SystemExit):
        restore(monkeypatch, f"run={run_directory}")
    assert "does not match the configuration in it" in capsys.readouterr().err


def test_a_stored_configuration_is_checked_again(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_directory / "config.yaml"
    stored = OmegaConf.load(file)
    stored.optimizer._target_ = "os.system"
    OmegaConf.save(stored, file)
    moved = run_directory.with_name(run_key(OmegaConf.to_container(stored)))  # type: ignore[arg-type]
    run_directory.rename(moved)
    for switch, refusal in (
        ("false", "names os.system, which a run directory may not"),
        ("true", "os.system has no return type"),
    ):
        with pytest.raises(SystemExit):
            restore(monkeypatch, f"run={moved}", f"trust_run={switch}")
        assert capsys.readouterr().err.startswith(f"optimizer._target_: {refusal}")
