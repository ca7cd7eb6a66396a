"""What SLURM says about jobs. No answer is not an answer: a job is only known to have ended if SLURM says so."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from altprop.problems import RunFailed

RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED")
PENDING = (
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
    *("SUSPENDED", "RESIZING"),
)
WAITING = (*RUNNING, *PENDING)
"""SLURM's states of a job that may still run."""
ASK_SECONDS = 60
"""How long SLURM may take for one answer."""
PATIENCE = 15.0
"""Seconds for which a command that must know the queue asks again."""
NEVER = {
    r"DependencyNeverSatisfied": "a job that it depends on failed or was canceled; repeat that one first",
    r"launch failed requeued held|job requeued in held state|JobHoldMaxRequeue": "its machine could not start it; see its log",
    r"Partition(Config|NodeLimit|TimeLimit)": "it asks for more than its partition allows: lower cluster.time or resources, "
    "or choose another cluster.partition",
    r"BadConstraints": "no machine has what it asks for: change cluster.constraint or resources",
    r"(Invalid|NotAllowed)?(Account|QOS)(NotAllowed)?": "cluster.account or cluster.qos may not be used here",
    r"\w*(PerJob(Limit)?|MaxWallDurationPerJobLimit)": "it is over a limit for one job: lower cluster.time or resources",
    r"DeadLine|Reservation ?Deleted": "what it was waiting for is over",
}
"""Reasons for which a pending job can never start without being changed -> what to do."""
HELD = {
    "JobHeldUser": "held: scontrol release {job}",
    "JobHeldAdmin": "held by an administrator",
}
"""Reasons for which a pending job waits for a person -> what to do."""


@dataclass(frozen=True)
class Job:
    """One job as SLURM describes it."""

    state: str
    reason: str = ""
    """Why it is pending."""
    node: str = ""
    elapsed: str = ""
    start: str = ""
    """When it started, or is expected to: ``2030-01-31T12:00:00`` in local time."""

    @property
    def live(self) -> bool:
        """Whether it may still run."""
        return self.state in WAITING

    @property
    def pending(self) -> bool:
        """Whether it waits to be started."""
        return self.state in PENDING

    @property
    def never(self) -> str | None:
        """What to do if it can never start as it is; None if it may."""
        remedies = [remedy for reason, remedy in NEVER.items() if re.fullmatch(reason, self.reason)]
        return remedies[0] if remedies and self.pending else None


@dataclass(frozen=True)
class Queue:
    """SLURM's answer about some jobs."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    complaint: str = ""
    """Why ``squeue`` gave no answer; empty if it answered."""

    @property
    def answered(self) -> bool:
        """Whether ``squeue`` answered, so that a job that it does not list has ended."""
        return not self.complaint

    def of(self, job: str | None) -> Job | None:
        """What is known about ``job``; None if SLURM does not know it or did not answer."""
        return self.jobs.get(job) if job is not None else None

    def may_run(self, job: str) -> bool:
        """Whether ``job`` may still run. True if SLURM did not answer."""
        known = self.jobs.get(job)
        return known.live if known is not None else not self.answered


def ask(jobs: Iterable[str | None], patience: float = 0.0) -> Queue:
    """What SLURM says about each of ``jobs`` (``12`` or ``12_3``): the queue, and the accounting for those that have ended.

    Asks again for ``patience`` seconds if there is no answer.
    """
    names = {job for job in jobs if job is not None}
    if not names:
        return Queue()
    end = time.monotonic() + patience
    while not (queue := _ask_once(names)).answered and time.monotonic() < end:
        time.sleep(1.0)
    return queue


def ask_surely(jobs: Iterable[str | None]) -> Queue:
    """The same. Raises :class:`RunFailed` if SLURM does not answer."""
    queue = ask(jobs, PATIENCE)
    if not queue.answered:
        raise RunFailed(
            f"SLURM does not say what is in its queue ({queue.complaint}); "
            "nothing was submitted or canceled: repeat the command later"
        )
    return queue


def job_states(jobs: Iterable[str]) -> dict[str, str]:
    """SLURM's state of each of ``jobs`` that it knows."""
    return {name: job.state for name, job in ask(jobs).jobs.items()}


def _ask_once(names: set[str]) -> Queue:
    numbers = ",".join(sorted({name.partition("_")[0] for name in names}))
    fields = "--format=%i|%T|%r|%N|%M|%S"
    lines, complaint = _run("squeue", "--noheader", "--array", "--states=all", fields, f"--jobs={numbers}")
    if "Invalid job id" in complaint:  # it has forgotten the only job that was asked for
        complaint = ""
    jobs: dict[str, Job] = {}
    for line in lines:
        name, *rest = (word.strip() for word in line.split("|"))
        if len(rest) == 5:
            jobs |= dict.fromkeys(jobs_of(name), Job(*rest))
    if any(name not in jobs or not jobs[name].live for name in names):
        for name, accounted in _accounted(numbers).items():
            known = jobs.get(name)
            new = known is None and (bool(complaint) or not accounted.live)  # squeue knows better what may still run
            if new or (known is not None and not known.live and accounted.state == "OUT_OF_MEMORY"):  # which squeue calls FAILED
                jobs[name] = accounted
    # Members of an array that never started may share one entry, under the number of the array.
    by_name = {name: jobs.get(name) or jobs.get(name.partition("_")[0]) for name in names}
    return Queue({name: job for name, job in by_name.items() if job is not None}, complaint)


def _accounted(numbers: str) -> dict[str, Job]:
    fields = "--format=JobID,State,NodeList,Elapsed,Start"
    lines, _ = _run("sacct", "--noheader", "--parsable2", fields, f"--jobs={numbers}")
    jobs: dict[str, Job] = {}
    for line in lines:
        step, state, node, elapsed, start = (*line.split("|"), "", "", "", "")[:5]
        word = (state.split() or ["UNKNOWN"])[0]
        for name in jobs_of(step.partition(".")[0]):
            # If a step was killed for its memory, the job itself is only FAILED.
            if name not in jobs or word == "OUT_OF_MEMORY":
                jobs[name] = Job(word, "", "" if node.startswith("None") else node, elapsed, start)
    return jobs


def jobs_of(text: str) -> list[str]:
    """The jobs in ``12``, ``12_3`` or ``12_[4-6,8%2]``, which is how SLURM writes jobs that never started."""
    main, _, members = text.partition("_")
    if not members:
        return [main]
    jobs: list[str] = []
    for part in members.strip("[]").partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        if first.isdigit() and (last or first).isdigit():
            jobs += [f"{main}_{number}" for number in range(int(first), int(last or first) + 1, int(step or 1))]
    return jobs or [main]


def submitted_from(folder: Path) -> tuple[list[str], str]:
    """The jobs in the queue whose batch script is in ``folder``, and why SLURM did not answer; empty if it did."""
    lines, complaint = _run("squeue", "--noheader", "--array", "--me", "--format=%i|%o")
    scripts = [line.split("|", 1) for line in lines]
    return [job for job, script in scripts if Path(script.strip()).is_relative_to(folder)], complaint


def _run(*command: str) -> tuple[list[str], str]:
    """The lines with fields that ``command`` prints, and its complaint if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ASK_SECONDS)
    except subprocess.TimeoutExpired:
        return [], f"{command[0]} takes longer than {ASK_SECONDS} s"
    except OSError as error:
        return [], f"{command[0]}: {error.strerror}"
    complaint = (
        (done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1] if done.returncode else ""
    )
    return [line for line in done.stdout.splitlines() if "|" in line], complaint
