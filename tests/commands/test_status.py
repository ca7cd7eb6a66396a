"""The command ``status.py`` and its verbs, without SLURM."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from altprop.commands import steering
from altprop.commands.status import report_arguments, status
from altprop.config.compose import compose
from altprop.files import write_json
from altprop.problems import ConfigError
from altprop.sweeping.jobs import ONLY, Manifest, SweepRun, to_be_run


def config_of(outputs: Path, *overrides: str) -> DictConfig:
    return compose([f"paths.outputs={outputs}", *overrides], "status")


def make_run(outputs: Path, key: str, state: str | None = None, **fields: Any) -> SweepRun:
    directory = outputs / "name" / key
    if state is not None:
        write_json(directory / "status.json", {"status": state, "epoch": 1, "total_epochs": 2, **fields})
    return SweepRun([f"optimizer.lr={key}", "model=[mlp]"], [], str(directory), 0, log=str(outputs / f"{key}.log"))


@pytest.fixture
def sweep(tmp_path: Path) -> Manifest:
    runs = [make_run(tmp_path, "a", "done"), make_run(tmp_path, "b", "failed", error="it broke"), make_run(tmp_path, "c")]
    manifest = Manifest(tmp_path / ".sweeps" / "2030", "group", "local", runs, command=["-m", "seed=0"])
    manifest.write()
    return manifest


def test_the_table_has_a_line_for_each_run_and_writes_nothing(
    sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(config_of(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "group   model=[mlp]"
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["0", "optimizer.lr=a", "done"],
        ["1", "optimizer.lr=b", "failed"],
        ["2", "optimizer.lr=c", "waiting"],
    ]
    assert any(line.startswith("optimizer.lr=b: it broke") for line in lines)
    assert "1 of the waiting runs are not in any queue: the same command starts them" in lines
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_without_a_sweep_the_runs_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no sweep was started yet"):
        status(config_of(tmp_path))
    make_run(tmp_path, "a", "done")
    make_run(tmp_path, "b", "failed", error="it broke")
    status(config_of(tmp_path))
    told = capsys.readouterr().out
    assert "name/a  done" in told
    assert "name/b: it broke" in told


def test_retry_gives_the_command_again_for_what_failed(
    sweep: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv(ONLY, env[ONLY])
        given.extend(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(steering.subprocess, "run", run)
    status(config_of(tmp_path, "action=retry", "run=2"))
    assert capsys.readouterr().out == "nothing to retry: no run has failed\n"
    status(config_of(tmp_path, "action=retry"))
    assert given[-3:] == ["-m", "seed=0", f"paths.outputs={tmp_path}"]
    assert to_be_run([(run, False) for run in sweep.runs]) == [sweep.runs[1]]


def test_logs_prints_the_log_of_a_run(sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(sweep.runs[1].log or "").write_text("one\ntwo\n")
    status(config_of(tmp_path, "action=logs", "run=1"))
    assert capsys.readouterr().out == "one\ntwo\n"
    for wrong in (["action=logs"], ["action=logs", "run=3"], ["action=log"], ["only=broken"]):
        with pytest.raises(ConfigError):
            status(config_of(tmp_path, *wrong))


def test_watch_ends_with_the_last_run(sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.runs.pop()
    sweep.write()
    status(config_of(tmp_path, "action=watch"))
    assert capsys.readouterr().out.count("1 done, 1 failed") == 1


def test_clean_says_sizes_first_and_never_removes_runs(
    sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "name" / "a" / ".status.json.x.tmp"
    half.write_text("{")
    copy = tmp_path / ".snapshots" / "0123"
    copy.mkdir(parents=True)
    (copy / "file").write_bytes(b"0" * 2_000_000)
    old = time.time() - 40 * steering.DAY
    for path in (half, copy, sweep.folder):
        os.utime(path, (old, old))
    sweep.code = None
    status(config_of(tmp_path, "action=clean"))
    told = capsys.readouterr().out
    assert "copies of the code: 1, 2.0 MB" in told
    assert "delete=true" in told
    assert half.exists()
    assert copy.exists()
    status(config_of(tmp_path, "action=clean", "delete=true"))
    assert not half.exists()
    assert not copy.exists()
    assert not sweep.folder.exists()
    assert (tmp_path / "name" / "a" / "status.json").exists()


def test_names_with_any_characters_reach_the_report(tmp_path: Path) -> None:
    names = ["it's", 'a "b"', "a\nb", "a,b [c]", "${x}"]
    runs = [SweepRun([], [], str(tmp_path / name / "key"), 0) for name in names]
    arguments = report_arguments(Manifest(tmp_path / "it's", "", "local", runs), tmp_path)
    values = [override.value() for override in OverridesParser.create().parse_overrides(arguments)]
    assert len(values[0]) == len(names)
    assert [str(value) for value in values[0]][:3] == [f"{name}/key" for name in names[:3]]
