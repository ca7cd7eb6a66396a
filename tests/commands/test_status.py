"""The command ``status.py`` and its verbs, without SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from altprop.commands import steering
from altprop.commands.status import chosen, report_arguments, status
from altprop.config.compose import compose
from altprop.files import write_json
from altprop.problems import ConfigError, RunFailed
from altprop.sweeping.jobs import ONLY, Manifest, SweepRun, to_be_run
from altprop.sweeping.queue import Queue
from altprop.training.locks import LOCK
from altprop.training.signals import Stopped


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
    assert capsys.readouterr().out == "nothing to retry: none of these runs has failed\n"
    status(config_of(tmp_path, "action=retry"))
    assert given[-3:] == ["-m", "seed=0", f"paths.outputs={tmp_path}"]
    assert to_be_run([(run, False) for run in sweep.runs]) == [sweep.runs[1]]


def test_retry_says_why_it_cannot(sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.runs = [SweepRun(["task=own"], [], None, 0, code=1)]
    sweep.write()
    with pytest.raises(ConfigError, match="have no run directories"):
        status(config_of(tmp_path, "action=retry"))
    sweep.runs[0].code = 0
    sweep.write()
    status(config_of(tmp_path, "action=retry"))
    assert capsys.readouterr().out == "nothing to retry: no run has failed\n"


def test_cancel_says_if_there_is_nothing_to_cancel(sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status(config_of(tmp_path, "action=cancel"))
    assert capsys.readouterr().out == "nothing to cancel: no run is in the queue or training\n"
    with FileLock(sweep.folder / LOCK):
        status(config_of(tmp_path, "action=cancel", "run=2"))
    assert capsys.readouterr().out.startswith(
        "nothing to cancel: none of these runs is in the queue or training; cancel the whole"
    )


def test_a_run_that_is_named_twice_is_not_the_whole_sweep(sweep: Manifest) -> None:
    assert chosen([1, 1, 1], sweep) == [1]


@pytest.mark.parametrize(
    ("code", "complaint", "problem"),
    [
        (1, "scancel: error: Kill job error on job id 5: Invalid job id specified", None),
        (1, "scancel: error: Kill job error on job id 5: Job/step already completing or completed", None),
        (1, "scancel: error: Kill job error on job id 5: Access/permission denied", "Access/permission denied; repeat"),
        (9, "", "scancel ended with 9; repeat"),
        (0, "scancel: Terminating", None),
    ],
)
def test_jobs_that_end_while_they_are_canceled_are_no_failure(
    code: int, complaint: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], code, "", complaint)
    monkeypatch.setattr(steering.subprocess, "run", lambda *words, **options: done)
    with nullcontext() if problem is None else pytest.raises(RunFailed, match=problem):
        steering._scancel(["5"])


def test_the_log_of_a_run_that_has_not_started(
    sweep: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunFailed, match="has not started and is not in any queue: the sweep's command starts it"):
        status(config_of(tmp_path, "action=logs", "run=2"))
    with pytest.raises(RunFailed, match="the run has printed nothing"):
        status(config_of(tmp_path, "action=logs", "run=1"))
    with pytest.raises(ConfigError, match="names 2 runs"):
        status(config_of(tmp_path, "action=logs", "run=[0,1]"))
    printed = iter(
        ["\u00fcbermorgen\n".encode()[:1], "\u00fcbermorgen\n".encode(), b"again\n"]
    )  # half a letter, then a new start

    def sleep(seconds: float) -> None:
        text = next(printed, None)
        if text is None:
            raise Stopped(signal.SIGINT)
        Path(sweep.runs[2].log or "").write_bytes(text)

    monkeypatch.setattr(steering.time, "sleep", sleep)
    with FileLock(sweep.folder / LOCK):
        status(config_of(tmp_path, "action=logs", "run=2"))
    told = capsys.readouterr()
    assert told.err.endswith("does not exist so far: the run is waiting; Ctrl-C ends this command\n")
    assert told.out == "\u00fcbermorgen\nagain\n"


def test_logs_prints_the_log_of_a_run(sweep: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(sweep.runs[1].log or "").write_text("one\ntwo\n")
    status(config_of(tmp_path, "action=logs", "run=1"))
    assert capsys.readouterr().out == "one\ntwo\n"
    for wrong in (["action=logs"], ["action=logs", "run=3"], ["action=log"], ["only=broken"]):
        with pytest.raises(ConfigError):
            status(config_of(tmp_path, *wrong))


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, "watching"), (signal.SIGTERM, "the command")])
def test_ctrl_c_ends_watching_and_other_signals_the_command(
    number: int, ends: str, sweep: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        raise Stopped(number)

    monkeypatch.setattr("altprop.commands.status.time.sleep", sleep)
    with nullcontext() if ends == "watching" else pytest.raises(Stopped):
        status(config_of(tmp_path, "action=watch"))


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


def test_clean_says_what_it_could_not_remove(
    sweep: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = time.time() - 40 * steering.DAY
    os.utime(sweep.folder, (old, old))
    monkeypatch.setattr(steering.shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.raises(RunFailed, match="2030 could not be removed"):
        status(config_of(tmp_path, "action=clean", "delete=true"))
    assert "removed: 0.0 MB" in capsys.readouterr().out
    with FileLock(sweep.folder / LOCK):  # its command is at work
        os.utime(sweep.folder, (old, old))
        status(config_of(tmp_path, "action=clean", "delete=true"))
    assert "sweeps: 0" in capsys.readouterr().out
    sweep.runs[0].job = "12"
    sweep.write()
    os.utime(sweep.folder, (old, old))
    monkeypatch.setattr(steering, "ask", lambda jobs: Queue({}, "no route to host"))
    status(config_of(tmp_path, "action=clean"))
    told = capsys.readouterr()
    assert "sweeps: 0" in told.out
    assert told.err == "SLURM does not answer (no route to host): sweeps whose jobs may still run are left out\n"


def test_names_with_any_characters_reach_the_report(tmp_path: Path) -> None:
    names = ["it's", 'a "b"', "a\nb", "a,b [c]", "${x}"]
    runs = [SweepRun([], [], str(tmp_path / name / "key"), 0) for name in names]
    arguments = report_arguments(Manifest(tmp_path / "it's", "", "local", runs), tmp_path)
    values = [override.value() for override in OverridesParser.create().parse_overrides(arguments)]
    assert len(values[0]) == len(names)
    assert [str(value) for value in values[0]][:3] == [f"{name}/key" for name in names[:3]]
