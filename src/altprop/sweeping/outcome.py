"""The state of each run of a sweep: from its ``status.json``, its lock and SLURM. Looking at it writes nothing."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from altprop.files import write_json
from altprop.sweeping.jobs import SweepRun, status_of
from altprop.sweeping.queue import HELD, Job, Queue
from altprop.training.locks import LOCK, is_locked, last_sign

STATES = ("done", "running", "waiting", "stuck", "preempted", "interrupted", "failed", "unknown")
STALE_SECONDS = 300.0
"""A trainer that gave no sign of life for so long has ended, unless a lock says otherwise."""
OUT_OF_MEMORY = (
    "out of memory: SLURM killed the run; give it more with resources.memory=<GB>, or lower dataset.batch_size or dataset.workers"
)
KILLED = (
    "killed, most likely by the system because it was out of memory; the same command resumes it; {remedy}, or lower "
    "dataset.batch_size or dataset.workers"
)
AGAIN = "the same command resumes it from its newest checkpoint"
VERDICTS = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "TIMEOUT": "time limit: the job was killed before it could save; raise cluster.signal_delay or cluster.time",
    "PREEMPTED": f"preempted and not queued again; {AGAIN}",
    "NODE_FAIL": f"its machine failed; {AGAIN}",
    "BOOT_FAIL": f"its machine did not start; {AGAIN}",
    "DEADLINE": f"the cluster's deadline passed; {AGAIN}",
}


@dataclass(frozen=True)
class Outcome:
    """The state of a run, one of :data:`STATES`, and what is known about it."""

    state: str
    reason: str = ""
    """Why it failed or cannot start."""
    pending: str = ""
    """SLURM's reason for which it waits."""
    node: str = ""
    elapsed: str = ""


def outcome(run: SweepRun, queue: Queue) -> Outcome:
    """The outcome of ``run``, given SLURM's answer about its job."""
    status, job = run.status, queue.of(run.job)
    word, error = str(status.get("status", "")), str(status.get("error") or "")
    node = (job.node if job is not None else "") or str(status.get("host", ""))
    elapsed = (job.elapsed if job is not None else "") or _duration(float(status.get("seconds") or 0.0))

    def result(state: str, reason: str = "", pending: str = "") -> Outcome:
        return Outcome(state, reason, pending, "" if pending else node, "" if pending else elapsed)

    if job is not None and job.live and not (word == "done" and "resume=false" not in run.arguments):
        if job.pending:
            return _pending(run, job, result)
        return result(word, error) if word and _written_since(status, job.start) else result("running")
    if word == "done":
        return result("done")
    if run.directory is not None and is_locked(Path(run.directory)):
        return result("running")
    if run.job is None:
        return result(*_without_a_job(run, word, error))
    if job is None and not queue.answered:
        return result(*_without_an_answer(run, word, error))
    if word in ("failed", "interrupted") and job_of(status) == run.job:
        return result(word, error)
    if word == "running" and job_of(status) != run.job and _is_fresh(run):
        return result("running")  # another process is training it
    return result(*_verdict(run, job))


def settle(runs: Iterable[SweepRun], queue: Queue) -> None:
    """Write the outcome of runs that could not report it themselves into their ``status.json``.

    The status of a run that a process holds is left alone, and nothing is written if SLURM did not answer.
    """
    for run in runs:
        if run.directory is None or (run.job is not None and queue.of(run.job) is None and not queue.answered):
            continue
        result = outcome(run, queue)
        if result.state in ("failed", "interrupted") and result.state != run.status.get("status"):
            _write(Path(run.directory), result.state, result.reason)


def settle_killed(run: SweepRun, code: int, started: float, remedy: str = "let fewer run at a time with cluster.workers") -> None:
    """Write the verdict for a process that ended with ``code``, if a signal killed it before it could report.

    ``started`` is when it was started, in seconds since the epoch: an older status is that of an earlier attempt. ``remedy`` says
    how to give it more memory.
    """
    status = run.status
    word = status.get("status")
    if (
        code >= 0
        or run.directory is None
        or word == "done"
        or (word not in (None, "running") and _written(status) >= int(started))
    ):
        return
    other = f"killed by signal {-code} ({signal.strsignal(-code)}); its log may say why; {AGAIN}"
    reason = KILLED.format(remedy=remedy) if code == -signal.SIGKILL else other
    _write(Path(run.directory), "failed", reason)


def ended_as(run: SweepRun, started: float) -> str | None:
    """``done`` or ``failed``, if the run has written one of them since ``started`` (seconds since the epoch); None otherwise."""
    status = run.status
    word = status.get("status")
    return word if word in ("done", "failed") and _written(status) >= int(started) else None


def note_failure(run: SweepRun, reason: str) -> None:
    """Write into the ``status.json`` of ``run`` that it has failed."""
    if run.directory is not None:
        _write(Path(run.directory), "failed", reason)


def _pending(run: SweepRun, job: Job, result: Any) -> Outcome:
    reason = job.reason if job.reason not in ("", "None") else job.state
    if job.never is not None:
        return result("stuck", f"{reason}: {job.never}. The same command replaces it", reason)
    return result("waiting", HELD.get(job.reason, "").format(job=run.job), reason)


def _without_a_job(run: SweepRun, word: str, error: str) -> tuple[str, str]:
    """The state of a run of a local sweep, or of one that was never submitted."""
    if run.refused:
        return "failed", run.refused
    if run.code is not None and not word:
        return ("done", "") if run.code == 0 else ("failed", run.last_words or f"exit code {run.code}")
    if word != "running":
        return word or "waiting", error
    here = run.status.get("host", socket.gethostname()) == socket.gethostname()
    return ("running", "") if _is_fresh(run) and not here else ("failed", f"killed {_since(run)}; {AGAIN}")


def _without_an_answer(run: SweepRun, word: str, error: str) -> tuple[str, str]:
    if word == "running" and _is_fresh(run):
        return "running", ""
    if word in ("failed", "interrupted") and job_of(run.status) == run.job:
        return word, error
    return "unknown", f"SLURM does not answer; {'no sign of life ' + _since(run) if word else 'it has not started so far'}"


def _verdict(run: SweepRun, job: Job | None) -> tuple[str, str]:
    """The state of a run that did not report its end. ``job`` is None if SLURM has forgotten it."""
    began = bool(run.status) and job_of(run.status) == run.job
    if job is None and not began and not Path(run.log or "").exists():
        return "interrupted", "canceled before it started"  # SLURM forgets a member of an array that is canceled by its number
    if job is None:
        known = f"its job {run.job} has ended, SLURM no longer knows how"
        return (
            "failed",
            f"{known}; no sign of life {_since(run)}; {AGAIN}"
            if began
            else f"{known}: {run.last_words or 'it has printed nothing'}",
        )
    if job.state == "CANCELLED":
        return "interrupted", "canceled"
    if job.state == "COMPLETED":
        return ("done", "") if run.directory is None else ("failed", f"its job has ended without a report; {AGAIN}")
    return "failed", VERDICTS.get(job.state) or _from_log(run) or f"the job ended as {job.state}; {AGAIN}"


def _from_log(run: SweepRun) -> str:
    """The reason from the log, because not every cluster has a state for each reason."""
    printed = run.printed
    if any(word in printed for word in ("exceeded memory limit", "oom_kill", "oom-kill", "Out Of Memory")):
        return VERDICTS["OUT_OF_MEMORY"]
    killed = [line for line in printed.splitlines() if line.startswith("srun: ") and line.endswith("Killed")]
    return f"killed from outside; {AGAIN}" if killed else run.last_words


def job_of(status: Mapping[str, Any]) -> str | None:
    """The SLURM job that wrote ``status``."""
    job = status.get("job") or {}
    if "slurm_array_job_id" in job:
        return f"{job['slurm_array_job_id']}_{job.get('slurm_array_task_id')}"
    return job.get("slurm_job_id")


def _written(status: Mapping[str, Any]) -> float:
    """When ``status`` was written, in seconds since the epoch; infinity if it does not say."""
    try:
        return datetime.strptime(status["updated_at"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except (KeyError, ValueError):
        return math.inf


def _written_since(status: Mapping[str, Any], start: str) -> bool:
    """Whether ``status`` was written after ``start``: by the present attempt of a job, not an earlier one."""
    try:
        return _written(status) >= datetime.fromisoformat(start).timestamp()
    except ValueError:  # SLURM does not know when it started
        return True


def _is_fresh(run: SweepRun) -> bool:
    sign = last_sign(Path(run.directory)) if run.directory is not None else None
    return sign is not None and time.time() - sign < STALE_SECONDS


def _since(run: SweepRun) -> str:
    sign = last_sign(Path(run.directory)) if run.directory is not None else None
    return "at an unknown time" if sign is None else f"after {datetime.fromtimestamp(sign):%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    """``seconds`` as SLURM writes times: ``1-02:03:04``, ``2:03:04``, ``3:04``."""
    if seconds <= 0:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days}-{clock}" if days else clock


def _write(directory: Path, status: str, reason: str) -> None:
    """Replace the status in ``directory``, unless a process is training the run or nothing can be written there."""
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with lock:
            previous: Mapping[str, object] = status_of(directory)
            moment = {"updated_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "eta_seconds": 0.0}
            write_json(directory / "status.json", {**previous, "status": status, "error": reason, **moment})
    except (Timeout, OSError):
        return
