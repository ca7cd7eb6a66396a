"""Warm workers: runs that are forked from a process with torch imported are like runs in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.config.compose import JobComposer, config_loader
from altprop.config.project import ROOT
from altprop.sweeping import fork_server, warm
from altprop.sweeping.jobs import SweepRun, manifests
from altprop.sweeping.outcome import outcome
from altprop.sweeping.queue import Queue

SHORT = ["trainer.duration=1ep", "trainer.limit_batches=2", "trainer.figures=false", "model.hidden=[8]", "trainer.device=cpu"]
ENDLESS = [*SHORT[1:], "trainer.duration=1000000ep", "trainer.evaluate_every=null", "trainer.checkpoint_every=null"]

pytestmark = pytest.mark.skipif(not fork_server.usable(), reason="runs are forked on Linux only")


def start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "train.py"), "-m", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, env=environment, text=True, start_new_session=True, **streams)  # type: ignore[call-overload, no-any-return]


def sweep(outputs: Path, *arguments: str) -> list[SweepRun]:
    process = start(outputs, *arguments)
    told = process.communicate(timeout=280)
    assert process.returncode == 0, told
    return next(manifests(outputs)).runs


def weights(run: SweepRun) -> dict[str, torch.Tensor]:
    return torch.load(Path(str(run.directory)) / "checkpoints/last.pt", weights_only=True)["algorithm"]["model"]


def assert_same_weights(one: SweepRun, other: SweepRun) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited too long")


def session(leader: int) -> list[int]:
    """The processes in the session of ``leader``: the command, its servers and its runs."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(number) == leader and state != "Z":
            processes.append(int(path.parent.name))
    return processes


def plain(text: str) -> str:
    """A log without times, speeds and the folder of the outputs."""
    return re.sub(r"\S*/(forked|separate)/|[\d,]+(?=, time)|[-\d]+ \d+:\d\d:\d\d|\d+:\d\d:\d\d", "·", text)


def test_warm_runs_are_like_runs_in_processes_of_their_own(tmp_path: Path) -> None:
    both = {}
    for word, value in (("forked", "true"), ("separate", "false")):
        both[word] = sweep(tmp_path / word, *SHORT, "seed=0,1", "cluster.workers=1", f"cluster.warm={value}")
        folder = next(manifests(tmp_path / word)).folder
        assert {path.name for path in folder.iterdir()} == {"0.log", "1.log", "runs.json", "multirun.yaml"}
    for one, other in zip(both["forked"], both["separate"], strict=True):
        assert_same_weights(one, other)
        assert plain(one.printed) == plain(other.printed)
        files = [{path.relative_to(run.directory or "") for path in Path(str(run.directory)).rglob("*")} for run in (one, other)]
        assert files[0] == files[1]
        texts = [(Path(str(run.directory)) / "config.yaml").read_text() for run in (one, other)]
        assert re.sub(r"warm: \w+", "", texts[0]) == re.sub(r"warm: \w+", "", texts[1].replace("/separate", "/forked"))
        metas = [json.loads((Path(str(run.directory)) / "meta.json").read_text()) for run in (one, other)]
        assert metas[0]["threads"] == metas[1]["threads"]
        assert [re.sub("warm=true|/forked", "", word) for word in metas[0]["command"]] == [
            re.sub("warm=false|/separate", "", word) for word in metas[1]["command"]
        ]


def test_kills_hurt_nobody_else_and_leave_nobody_behind(tmp_path: Path) -> None:
    arguments = [*ENDLESS, "seed=0,1,2", "cluster.workers=2"]
    runs = lambda: next(manifests(tmp_path)).runs  # noqa: E731

    def training(*others: int) -> list[SweepRun] | None:
        found = [run for run in (runs() if list(manifests(tmp_path)) else []) if run.status.get("status") == "running"]
        found = [run for run in found if run.status["step"] and run.status["pid"] not in others]
        return found if len(found) == 2 else None

    command = start(tmp_path, *arguments)  # the command is killed
    before = [run.status["pid"] for run in wait_for(training)]
    os.kill(command.pid, signal.SIGKILL)
    command.communicate(timeout=60)
    wait_for(lambda: not session(command.pid))
    assert [run.status.get("status") for run in runs()] == ["interrupted", "interrupted", None]

    command = start(tmp_path, *arguments)  # one of its runs and then the server are killed
    first, second = wait_for(lambda: training(*before))
    os.kill(first.status["pid"], signal.SIGKILL)
    third = wait_for(lambda: next((run for run in training(*before) or [] if run.seed == 2), None))
    forked = [second.status["pid"], third.status["pid"]]
    [server] = {int(Path(f"/proc/{process}/stat").read_text().split()[3]) for process in forked}
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: training(*before, *forked))
    os.killpg(command.pid, signal.SIGTERM)
    told = command.communicate(timeout=60)
    assert command.returncode == 143, told
    assert "the process that runs are forked from has ended" in told[1]
    assert [run.status["status"] for run in runs()] == ["failed", "interrupted", "interrupted"]
    assert "killed" in outcome(first, Queue()).reason
    assert all("resuming from step" in run.printed for run in (second, third))
    assert not session(command.pid)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_reach_every_run(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = start(tmp_path, *ENDLESS, "seed=0,1", "cluster.workers=1")
    run = wait_for(lambda: next((run for each in manifests(tmp_path) for run in each.runs if run.status.get("step")), None))
    os.killpg(command.pid, number)  # as a terminal or a cluster does
    command.communicate(timeout=60)
    assert command.returncode == code
    assert run.status["status"] == "interrupted"
    assert "everything is saved" in run.printed
    assert not session(command.pid)


def test_own_modules_are_imported_by_the_runs(tmp_path: Path) -> None:
    """So each sweep runs the code as it is then, also with the command ``altprop`` in a folder of one's own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    overrides = ["task._target_=mine.task", "seed=0,1", "cluster.workers=1", f"paths.outputs={tmp_path}/outputs"]
    for word in ("first", "second"):
        (tmp_path / "mine.py").write_text(f"def task(parts):\n    print('{word}', parts.seed)\n")
        line = [sys.executable, "-m", "altprop", "train", "-m", *overrides]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert [run.printed for run in next(manifests(tmp_path / "outputs")).runs] == [f"{word} {seed}\n" for seed in (0, 1)]


def test_runs_that_share_a_gpu_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs are pretended: torch finds none and trains on the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    runs = sweep(tmp_path, *SHORT[:-1], "trainer.device=auto", "seed=range(5)", "cluster.per_gpu=2")
    seen = [run.status["job"]["cuda_visible_devices"] for run in runs]
    assert seen[:4] == ["0", "3", "0", "3"]
    assert {run.status["status"] for run in runs} == {"done"}


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["seed=1", "hydra.mode=RUN"], True),
        (["seed=1", "hydra.verbose=true", "hydra.mode=RUN"], False),
        (["run=outputs/x", "hydra.mode=RUN"], False),
        (["dataset._target_=mine.Digits", "hydra.mode=RUN"], False),
    ],
)
def test_only_configurations_of_altprop_are_composed_in_advance(overrides: list[str], known: bool) -> None:
    with config_loader() as composer:
        jobs = JobComposer(composer.loader, composer.compose("train", [], multirun=True))
        assert (warm._composed(SweepRun([], overrides, None, 0), jobs) is not None) is known


def test_a_server_that_cannot_start_is_replaced_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "arguments", lambda name: [sys.executable, "-c", "raise SystemExit('no torch')"])
    servers, run = warm.Servers(), SweepRun([], [], None, 0, log=str(tmp_path / "0.log"))
    process = servers.start(run, {}, None, tmp_path)
    if process is not None:
        assert wait_for(lambda: process.poll()) == warm.LOST
    assert servers.start(run, {}, None, tmp_path) is None
    assert servers.start(run, {}, None, tmp_path) is None
    servers.close()
