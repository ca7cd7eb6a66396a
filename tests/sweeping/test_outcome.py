"""The state of a run from its files, its lock and SLURM's answer, each of which may be missing or out of date."""

from __future__ import annotations

import errno
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from altprop.files import write_json
from altprop.problems import RunFailed
from altprop.sweeping import queue as queue_module
from altprop.sweeping.command import TrainJob
from altprop.sweeping.jobs import SweepRun
from altprop.sweeping.outcome import outcome, settle
from altprop.sweeping.pack import PackJob
from altprop.sweeping.queue import Job, Queue, ask, ask_surely
from altprop.training.locks import LOCK, SUBMISSION
from altprop.training.rundir import RunDirectory
from hydra_plugins.altprop_sweeps import disk_errors_explained

JOB = "12_3"
OF_THE_JOB = {"slurm_array_job_id": "12", "slurm_array_task_id": "3"}
HOUR = 3600.0


@pytest.fixture
def run(tmp_path: Path) -> SweepRun:
    return SweepRun(["seed=0"], [], str(tmp_path / "run"), 0, job=JOB, log=str(tmp_path / "log"))


def write(run: SweepRun, status: str, *, age: float = 0.0, **fields: Any) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - age))
    file = Path(run.directory or "") / "status.json"
    write_json(file, {"status": status, "updated_at": moment, "job": OF_THE_JOB, **fields})
    os.utime(file, (time.time() - age,) * 2)


def queue(state: str, reason: str = "None", start: str = "N/A") -> Queue:
    return Queue({JOB: Job(state, reason, "node1", "1:00", start)})


@pytest.mark.parametrize("before", ["running", "interrupted", "failed", "preempted", None])
def test_whatever_was_written_a_pending_job_waits(run: SweepRun, before: str | None) -> None:
    if before is not None:
        write(run, before, error="of an earlier attempt")
    found = outcome(run, queue("PENDING", "Priority"))
    assert (found.state, found.pending, found.reason) == ("waiting", "Priority", "")


def test_a_status_of_an_earlier_attempt_is_not_that_of_a_running_job(run: SweepRun) -> None:
    write(run, "failed", age=HOUR, error="before")
    started = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 60))
    assert outcome(run, queue("RUNNING", start=started)).state == "running"
    write(run, "failed", error="now")
    assert outcome(run, queue("RUNNING", start=started)).state == "failed"


@pytest.mark.parametrize(
    ("reason", "never"),
    [
        ("DependencyNeverSatisfied", True),
        ("launch failed requeued held", True),
        ("PartitionConfig", True),
        ("PartitionTimeLimit", True),
        ("QOSMaxWallDurationPerJobLimit", True),
        ("AssocMaxCpuPerJobLimit", True),
        ("AccountNotAllowed", True),
        ("Resources", False),
        ("JobHeldUser", False),
        ("AssocGrpCpuLimit", False),
        ("ReqNodeNotAvail, UnavailableNodes:node1", False),
    ],
)
def test_what_can_never_start_is_stuck(run: SweepRun, reason: str, never: bool) -> None:
    found = outcome(run, queue("PENDING", reason))
    assert found.state == ("stuck" if never else "waiting")
    assert ("The same command replaces it" in found.reason) is never


@pytest.mark.parametrize(
    ("state", "expected", "words"),
    [
        ("CANCELLED", "interrupted", "canceled"),
        ("OUT_OF_MEMORY", "failed", "resources.memory"),
        ("NODE_FAIL", "failed", "machine failed"),
        ("FAILED", "failed", "ended as FAILED"),
        ("PREEMPTED", "failed", "not queued again"),
    ],
)
def test_a_job_that_ended_without_a_word(run: SweepRun, state: str, expected: str, words: str) -> None:
    write(run, "running")
    found = outcome(run, queue(state))
    assert found.state == expected
    assert words in found.reason
    assert run.status["status"] == "running"  # looking at it writes nothing
    settle([run], queue(state))
    assert run.status["status"] == expected


def test_without_accounting_what_is_known_is_said(run: SweepRun) -> None:
    write(run, "running", age=HOUR)
    found = outcome(run, Queue())  # squeue answers and has forgotten the job
    assert found.state == "failed"
    assert "no sign of life after" in found.reason
    Path(run.log or "").write_text("")
    Path(run.directory or "", "status.json").unlink()
    assert outcome(run, Queue()).state == "failed"
    Path(run.log or "").unlink()
    assert outcome(run, Queue()).state == "interrupted"  # it never started: a member of an array, canceled by its number


def test_no_answer_is_not_the_end(run: SweepRun) -> None:
    silent = Queue(complaint="Unable to contact slurm controller")
    assert silent.may_run(JOB)
    assert outcome(run, silent).state == "unknown"
    write(run, "running", age=HOUR)
    assert outcome(run, silent).state == "unknown"
    write(run, "running")
    assert outcome(run, silent).state == "running"
    settle([run], silent)
    assert run.status["status"] == "running"


def test_nobody_writes_the_status_of_a_run_that_another_process_holds(run: SweepRun) -> None:
    write(run, "running", job={})
    with RunDirectory(Path(run.directory or ""), "name", "key").lock():
        assert outcome(run, queue("FAILED")).state == "running"
        settle([run], queue("FAILED"))
    assert run.status["status"] == "running"


def test_a_local_run_whose_process_is_gone(run: SweepRun) -> None:
    run.job = None
    write(run, "running", job={}, host=socket.gethostname())
    assert outcome(run, Queue()).state == "failed"
    write(run, "running", job={}, host="another machine")
    assert outcome(run, Queue()).state == "running"  # the lock of another machine may be invisible
    write(run, "running", age=HOUR, job={}, host="another machine")
    assert outcome(run, Queue()).state == "failed"


def test_the_heartbeat_touches_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altprop.training.locks.HEARTBEAT_SECONDS", 0.02)
    with RunDirectory(tmp_path, "name", "key").lock():
        os.utime(tmp_path / LOCK, (0, 0))
        end = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime < HOUR and time.monotonic() < end:
            time.sleep(0.02)
        assert (tmp_path / LOCK).stat().st_mtime > HOUR


def test_squeue_is_asked_again_before_a_command_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [([], "timed out"), ([], "no accounting"), ([f"{JOB}|PENDING|Priority||0:00|N/A"], "")]
    monkeypatch.setattr(queue_module, "_run", lambda *command: answers.pop(0))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert ask_surely([JOB]).of(JOB) == Job("PENDING", "Priority", "", "0:00", "N/A")
    monkeypatch.setattr(queue_module, "_run", lambda *command: ([], "timed out"))
    monkeypatch.setattr(queue_module, "PATIENCE", 0.0)
    with pytest.raises(RunFailed, match="nothing was submitted"):
        ask_surely([JOB])
    monkeypatch.setattr(queue_module, "_run", lambda *command: ([], "slurm_load_jobs error: Invalid job id specified"))
    assert ask([JOB]).answered
    assert not ask([JOB]).may_run(JOB)


def test_only_the_time_limit_counts_as_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    job = TrainJob([], minutes=2, signal_delay=20, max_timeouts=1)
    job.started = time.time() - 30
    assert not job.timed_out
    job.checkpoint()
    job.started = time.time() - 80
    assert job.timed_out
    job.checkpoint()
    with pytest.raises(RunFailed, match="the same command resumes it"):
        job.checkpoint()


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (-1, False), (1, False), (143, True)])
def test_sigterm_stops_the_start_of_a_job_and_not_its_end(
    code: int, requeued: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """submitit exits with -1 after a requeue. A job that was stopped by SIGTERM may still be told to requeue."""
    received: list[int] = []

    def run(name: str, run_name: str) -> None:
        if not received:
            signal.raise_signal(signal.SIGTERM)
        raise SystemExit(code)

    monkeypatch.setattr(runpy, "run_module", run)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv(SUBMISSION, "")
    monkeypatch.setattr("altprop.sweeping.command.PREEMPTION_SECONDS", 0.0)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
        with pytest.raises(SystemExit, match="143"):
            TrainJob([])()
        assert capsys.readouterr().err.startswith("stopped by SIGTERM before training began; the same command")
        signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(SystemExit, match=str(code)):
            TrainJob([])()
        for number in before:
            signal.raise_signal(number)
        assert len(received) == 1 + requeued
        assert capsys.readouterr().err == ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_starting_over_happens_once_per_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(tmp_path, "name", "key")
    directory.clear()
    assert not directory.started_over
    monkeypatch.setenv(SUBMISSION, "first")
    assert not directory.started_over
    directory.clear()
    assert directory.started_over
    monkeypatch.setenv(SUBMISSION, "second")
    assert not directory.started_over


def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(RunFailed, match="No space left on device: "), disk_errors_explained():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/outputs/runs.json")
    with pytest.raises(OSError, match="broken"), disk_errors_explained():
        raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize(
    ("word", "age", "code"),
    [("done", 0, 0), ("failed", 0, 1), ("preempted", 0, None), ("failed", 100, None), ("running", 0, None)],
)
def test_a_run_of_a_shared_job_that_ended_as_the_signal_came_is_not_repeated(
    tmp_path: Path, word: str, age: int, code: int | None
) -> None:
    """The signal kills a process that has written its status and is about to end."""
    run = SweepRun(["seed=0"], [], str(tmp_path), 0)
    job = PackJob([run])
    job.started = time.time()
    written = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(job.started - age))
    write_json(tmp_path / "status.json", {"status": word, "updated_at": written})
    process: Any = SimpleNamespace(poll=lambda: -signal.SIGUSR2)
    assert not job._running({0: process}, stopping=True)
    assert job.codes.get(0) == code
