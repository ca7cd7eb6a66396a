"""The outcome of runs that could not report it: killed for their memory, canceled, or lost with their machine."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from altprop.files import write_json
from altprop.sweeping.jobs import SweepRun, status_of

WAITING = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "RESIZING", "REQUEUE_HOLD", "PREEMPTED")
"""SLURM's states of a job that may still run."""
OUT_OF_MEMORY = (
    "out of memory: {who} killed the run; give it more with resources.memory=<GB>, or lower dataset.batch_size or dataset.workers"
)
VERDICTS = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY.format(who="SLURM"),
    "TIMEOUT": "time limit: the job was killed before it could save; raise cluster.signal_delay or cluster.time",
    "NODE_FAIL": "its machine failed",
    "BOOT_FAIL": "its machine did not start",
    "DEADLINE": "the cluster's deadline passed before it could run",
}


def settle(runs: Iterable[SweepRun]) -> dict[str, str]:
    """Write SLURM's verdict into ``status.json`` of every run whose job has ended without writing a status.

    Returns SLURM's state of each job that it knows.
    """
    unsettled = [run for run in runs if run.job is not None and run.status.get("status") in (None, "running", "preempted")]
    if not unsettled:
        return {}
    states = job_states([run.job for run in unsettled if run.job is not None])
    for run in unsettled:
        state = states.get(run.job or "")
        if state is not None and state not in WAITING:
            _write_verdict(run, state)
    return states


def settle_killed(run: SweepRun, code: int) -> None:
    """Write the verdict for a local worker process that ended with ``code``."""
    if code >= 0 or run.directory is None or run.status.get("status") not in (None, "running"):
        return
    reason = OUT_OF_MEMORY.format(who="most likely the system") if code == -signal.SIGKILL else signal.Signals(-code).name
    _write(Path(run.directory), "failed", reason)


def job_states(jobs: Iterable[str]) -> dict[str, str]:
    """SLURM's state of each job (``12`` or ``12_3``), from the queue, or else from the accounting."""
    names = set(jobs)
    numbers = ",".join(sorted({job.partition("_")[0] for job in names}))
    queue = _ask("squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={numbers}")
    states = dict(line.split("|") for line in queue)
    if names - set(states):
        for line in _ask("sacct", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={numbers}"):
            step, _, state = line.partition("|")
            word = (state.split() or ["UNKNOWN"])[0]
            for job in _jobs_of(step.partition(".")[0]):
                # If a step was killed for its memory, the job itself is only FAILED.
                if job not in states or word == "OUT_OF_MEMORY":
                    states[job] = word
    # Members of an array that never started share one line, under the number of the array.
    by_job = {job: states.get(job) or states.get(job.partition("_")[0]) for job in names}
    return {job: state for job, state in by_job.items() if state is not None}


def _jobs_of(text: str) -> list[str]:
    """The jobs in ``12``, ``12_3`` or ``12_[4-6,8%2]``, which is how SLURM writes jobs that never started."""
    from submitit.slurm.slurm import read_job_id

    jobs: list[str] = []
    for main, *numbers in read_job_id(text):
        if numbers:
            jobs += [f"{main}_{number}" for number in range(int(numbers[0]), int(numbers[-1]) + 1)]
        else:
            jobs.append(main)
    return jobs


def _ask(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if "|" in line]


def _write_verdict(run: SweepRun, state: str) -> None:
    if run.directory is None:
        return
    if state == "CANCELLED":
        _write(Path(run.directory), "interrupted", "canceled")
    elif state != "COMPLETED":
        reason = VERDICTS.get(state) or _from_log(run) or f"the job ended as {state}"
        _write(Path(run.directory), "failed", reason)


def _from_log(run: SweepRun) -> str:
    """The reason from the log, because not every cluster has a state for each reason."""
    printed = run.printed
    if any(word in printed for word in ("exceeded memory limit", "oom_kill", "oom-kill", "Out Of Memory")):
        return VERDICTS["OUT_OF_MEMORY"]
    killed = [line for line in printed.splitlines() if line.startswith("srun: ") and line.endswith("Killed")]
    return "killed from outside; it resumes from its newest checkpoint when it is submitted again" if killed else run.last_words


def _write(directory: Path, status: str, reason: str) -> None:
    previous: Mapping[str, object] = status_of(directory)
    directory.mkdir(parents=True, exist_ok=True)
    moment = {"updated_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "eta_seconds": 0.0}
    write_json(directory / "status.json", {**previous, "status": status, "error": reason, **moment})
