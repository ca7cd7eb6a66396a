"""What the tests do with jobs: submit them as altprop's command does, wait, signal, compare weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import altprop
from altprop.config.project import ROOT
from altprop.sweeping.jobs import Manifest, SweepRun, manifests
from altprop.sweeping.queue import WAITING, job_states
from tests.slurm.pausing import GO

PATIENCE = 240
"""Seconds: the machine may be busy."""
REVOCATION = 1.5
"""Seconds after which a requeued job may start: SLURM fails one that starts in the second in which its credential was revoked."""
SMALL = [
    "resources=cpu",
    "resources.cores=1",
    "resources.memory=1",
    "trainer.figures=false",
    "trainer.threads=1",
    "model.hidden=[16]",
]
"""A run of a few seconds on the embedded digits, 32 steps in an epoch."""
LONG = [*SMALL, "trainer.duration=12ep", "trainer.evaluate_every=2ep", "trainer.checkpoint_every=6ep", "trainer.keep=1"]
"""A run with six records."""
PAUSING = ["+logger.pause._target_=tests.slurm.pausing.Pause"]
"""The run waits at its second record until :func:`let_go`."""
ENDLESS = [*SMALL, "trainer.duration=100000ep", "trainer.evaluate_every=20ep", "trainer.checkpoint_every=null"]
QUEUED = ["cluster=slurm", "cluster.snapshot=false"]
"""Jobs that run the checkout, so that not each of them compiles a copy of it."""


DIVERGING = ["optimizer=sgd", "algorithm/loss=squared_hinge"]
"""With these, the loss becomes infinite within a few steps at a rate of 1000."""


def command(outputs: Path, script: str, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root / "src")}
    line = [sys.executable, str(root / script), *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def checkout(folder: Path) -> Path:
    """A copy of the project that a test may change, without this machine's own settings."""
    for name in ("src", "conf", "sweeps"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for file in (folder / "conf/local").glob("*.yaml"):
        file.unlink()
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    return folder


def submit(outputs: Path, *overrides: str, table: bool = True) -> Manifest:
    """Submit a sweep and return what was noted of it. Without ``table``, the job that writes the table is taken back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALTPROP_OUTPUTS", str(outputs))
        altprop.sweep(*QUEUED, *overrides)  # what the command does, without a second interpreter
    sweep = next(manifests(outputs))
    if not table:
        subprocess.run(["scancel", str(sweep.table)], check=True)
    return sweep


def wait_for(what: str, condition: Callable[[], Any], every: float = 0.05) -> Any:
    """Look ``every`` so many seconds whether ``condition`` is true; its value."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"waited {PATIENCE} s for: {what}")


def state(run: SweepRun) -> str:
    """SLURM's state of the run's job."""
    assert run.job is not None
    return job_states([run.job]).get(run.job, "UNKNOWN")


def wait_for_step(run: SweepRun, least: int = 1) -> int:
    """Wait until the run has trained so many steps; returns how many it has."""
    return wait_for(
        f"step {least} of {run.job}",
        lambda: (step := run.status.get("step", 0)) >= least and run.status["status"] == "running" and step,
    )


PENDING_SINCE: dict[str, float] = {}


def hurry(runs: Sequence[SweepRun]) -> dict[str, str]:
    """Let jobs that were queued again start at once instead of in two minutes. Returns the state of every job."""
    states = job_states(run.job for run in runs if run.job)
    for job, word in states.items():
        if word != "PENDING":
            PENDING_SINCE.pop(job, None)
        elif time.monotonic() - PENDING_SINCE.setdefault(job, time.monotonic()) > REVOCATION:
            subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], capture_output=True)
    return states


def wait_for_end(*runs: SweepRun) -> None:
    """Wait until no job of ``runs`` is left."""
    wait_for(f"the end of {[run.job for run in runs]}", lambda: not set(hurry(runs).values()) & set(WAITING), every=0.2)


def signal_job(run: SweepRun, name: str) -> None:
    assert run.job is not None
    subprocess.run(["scancel", f"--signal={name}", run.job], check=True)


def cancel(sweep: Manifest) -> None:
    """Take the sweep's jobs back, and the one that writes its table. Some of them may have ended."""
    jobs = {job for job in (sweep.table, *(run.job for run in sweep.runs)) if job is not None}
    subprocess.run(["scancel", *jobs], capture_output=True)


def let_go(run: SweepRun) -> None:
    """End the pause of a run with :data:`PAUSING`, or see to it that it does not pause."""
    directory = Path(str(run.directory))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / GO).touch()


def interrupt(run: SweepRun) -> int:
    """Take the machine of a job with :data:`PAUSING` away, as a cluster does; the step at which it was saved."""
    wait_for_step(run)
    process = run.status["pid"]
    os.kill(process, signal.SIGSTOP)  # so that it receives the signal before it continues
    signal_job(run, "USR2")
    wait_for("the signal", lambda: is_pending(signal.SIGUSR2, process))
    let_go(run)
    os.kill(process, signal.SIGCONT)
    return wait_for("saving", lambda: run.status["status"] == "preempted" and run.status["step"])


def is_pending(number: signal.Signals, process: int) -> bool:
    """Whether ``process``, which is stopped, was sent a signal that it has not received."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def preempt(run: SweepRun) -> int:
    """Interrupt the run, and see it to its end; the step at which it was saved."""
    stopped_at = interrupt(run)
    wait_for_end(run)
    assert run.status["status"] == "done"
    assert f"resuming from step {stopped_at}" in log_of(run)
    return stopped_at


def log_of(run: SweepRun) -> str:
    assert run.log is not None
    return Path(run.log).read_text()


def weights(directory: str | Path | None) -> dict[str, torch.Tensor]:
    """The weights of a finished run."""
    assert directory is not None
    directory = Path(directory)
    assert json.loads((directory / "status.json").read_text())["status"] == "done"
    return torch.load(directory / "checkpoints" / "last.pt", weights_only=True)["algorithm"]["model"]


def assert_same_weights(one: SweepRun, other: SweepRun) -> None:
    left, right = weights(one.directory), weights(other.directory)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
