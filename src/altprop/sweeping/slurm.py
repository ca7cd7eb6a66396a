"""A sweep on SLURM: what is left to do becomes one array job, and a table job follows it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from altprop.config.compose import composer_of
from altprop.config.environment import group_of
from altprop.config.project import home
from altprop.config.quoting import quoted
from altprop.problems import RunFailed
from altprop.program import command
from altprop.sweeping.jobs import Manifest, SweepRun, adopt, manifests, sweep_runs, to_be_run, unlisted
from altprop.sweeping.local import finished_job
from altprop.sweeping.outcome import outcome, settle
from altprop.sweeping.queue import Queue, ask, ask_surely
from altprop.sweeping.snapshot import take_snapshot
from altprop.sweeping.submission import SubmissionRefused, SubmissionUnclear, packed, signals_postponed, submit_runs, submit_table

POLL_SECONDS = 2.0
NOTICE_SECONDS = 2.0
"""After how long a command that waits for another one says so."""


def launch(
    loader: ConfigLoader, config: DictConfig, parameters: Mapping[str, Any], job_overrides: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Submit every run that is neither finished nor in the queue. ``parameters`` are those of hydra-submitit-launcher.

    Returns at once, or with ``cluster.wait`` after the last job has ended. Raises :class:`RunFailed` if SLURM does not answer, or
    refuses the jobs.
    """
    parameters = {**parameters, **_collections(config)}
    planned = list(sweep_runs(composer_of(loader, config), job_overrides))
    runs = [run for run, _ in planned]
    outputs, folder = Path(config.paths.outputs).absolute(), Path(config.hydra.sweep.dir).absolute()
    with one_at_a_time(outputs):
        earlier = list(map(adopt, manifests(outputs)))
        queued, stuck, queue = _find_queued(earlier, [run for run, finished in planned if not finished])
        left = [run for run in to_be_run(planned) if run.job is None]
        manifest = Manifest.begin(folder, group_of(config), "slurm", runs)
        summary = [f"{len(runs)} runs", f"{sum(finished for _, finished in planned)} done already"]
        summary += [f"{queued} in the queue already"] if queued else []
        code = home()
        if left and config.cluster.snapshot:
            code = take_snapshot(outputs / ".snapshots")
        manifest.code = str(code)
        packs = packed(left, config.cluster.per_gpu)
        numbers = {id(run): number for number, run in enumerate(manifest.runs)}
        for run in left:
            run.submitting = True
            run.log = str(folder / f"{numbers[id(run)]}.log") if config.cluster.per_gpu > 1 else None
        manifest.write()  # before anything is in the queue
        with signals_postponed():
            if stuck:
                subprocess.run(["scancel", *stuck], capture_output=True)
                summary.append(f"{len(stuck)} that could never start canceled")
            if left:
                _submit(manifest, packs, parameters, code)
                summary.append(f"{len(left)} submitted as job {manifest.job}")
            else:
                summary.append("nothing to submit")
            complaint = _order_table(manifest, runs, outputs, earlier, queue, parameters, code) if queued or left else ""
            manifest.write()
    for line in unlisted(job_overrides, runs):
        print(line)
    print("; ".join(summary))
    status = f"{command('status')} {shlex.quote(f'folder={quoted(str(folder))}')}"
    if complaint:
        print(f"the runs are in the queue, but there will be no table: {complaint}", file=sys.stderr)
        print(f"write it with: {status} table=true", file=sys.stderr)
    print(f"status: {status}")
    if config.cluster.wait:
        return _wait(runs)
    return [JobReturn(overrides=run.overrides, _return_value=None, status=JobStatus.COMPLETED) for run in runs]


class one_at_a_time:  # noqa: N801 - used like a function
    """A lock around look-up, submission and note, so that two commands at the same moment submit each run once."""

    def __init__(self, outputs: Path) -> None:
        self.lock = FileLock(outputs / ".sweeps" / ".lock")

    def __enter__(self) -> None:
        Path(self.lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=NOTICE_SECONDS)
        except Timeout:
            print("waiting for another command that is submitting", file=sys.stderr)
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def _collections(config: DictConfig) -> dict[str, Any]:
    """The settings that are lists or mappings: Hydra cannot interpolate these into the launcher's typed node."""
    cluster = config.cluster
    return {
        "setup": list(cluster.setup or ()),
        "additional_parameters": dict(cluster.sbatch or {}),
    }


def _find_queued(earlier: Sequence[Manifest], runs: Sequence[SweepRun]) -> tuple[int, list[str], Queue]:
    """Set ``job`` of the runs that an earlier command submitted and that may still run.

    Returns their number, the jobs that can never start, and SLURM's answer.
    """
    submitted: dict[str, SweepRun] = {}
    for manifest in reversed(earlier):
        submitted |= {run.directory: run for run in manifest.runs if run.directory and run.job}
    known = {run.directory: submitted[run.directory] for run in runs if run.directory in submitted}
    tables = [manifest.table for manifest in earlier]
    queue = ask_surely([*(before.job for before in known.values()), *tables]) if known else Queue()
    stuck: list[str] = []
    for run in runs:
        before = known.get(run.directory or "")
        job = queue.of(before.job) if before is not None else None
        if before is None or job is None or not job.live:
            continue
        if before.packed and not job.pending and outcome(before, queue).state in ("failed", "interrupted"):
            continue  # the other runs of its job are still at work
        if job.never is not None:
            stuck.append(str(before.job))
        else:
            run.job, run.log = before.job, before.log
    return sum(run.job is not None for run in runs), stuck, queue


def _submit(manifest: Manifest, packs: Sequence[Sequence[SweepRun]], parameters: Mapping[str, Any], code: Path) -> None:
    """Submit a job for each of ``packs`` and note the result, also a refusal. Raises :class:`SubmissionRefused`.

    Runs stay noted as being submitted if it is unclear whether SLURM took them, so that :func:`adopt` looks for them.
    """
    try:
        manifest.job = submit_runs(packs, manifest.folder, parameters, code)
    except SubmissionUnclear:
        raise
    except SubmissionRefused as refusal:
        for run in (run for pack in packs for run in pack):
            run.submitting, run.refused = False, str(refusal)
        manifest.write()
        raise
    manifest.write()


def _order_table(
    manifest: Manifest,
    runs: Sequence[SweepRun],
    outputs: Path,
    earlier: Sequence[Manifest],
    queue: Queue,
    parameters: Mapping[str, Any],
    code: Path,
) -> str:
    """See to it that a job writes the table after the last run. Returns why SLURM refused it; empty if it did not."""
    waiting = {run.directory for run in runs if run.job is not None}
    if not any(run.job is not None and run.job.partition("_")[0] == manifest.job for run in runs):
        for before in earlier:  # nothing was submitted: an earlier command's table may still be to come
            table = queue.of(before.table)
            if table is not None and table.live and table.never is None and waiting <= {run.directory for run in before.runs}:
                manifest.table = before.table
                return ""
    if manifest.table is not None:  # of an earlier batch; the new one waits for all of them
        subprocess.run(["scancel", "--state=PENDING", manifest.table], capture_output=True)
        manifest.table = None
    try:
        manifest.table = submit_table(manifest, outputs, _arrays(manifest), parameters, code)
    except SubmissionRefused as refusal:
        return str(refusal)
    return ""


def _arrays(manifest: Manifest) -> list[str]:
    """The arrays that the table waits for: all whose jobs may still run."""
    jobs = {run.job for run in manifest.runs if run.job is not None}
    queue = ask(jobs)
    arrays = {job.partition("_")[0] for job in jobs if queue.may_run(job)} | ({manifest.job} if manifest.job else set())
    return sorted(arrays, key=int)


def _wait(runs: Sequence[SweepRun]) -> list[JobReturn]:
    """Wait until every job has ended or can never start.

    Raises :class:`RunFailed` with one line for each run that is not done.
    """
    jobs = {run.job for run in runs if run.job is not None}
    silent = False
    while True:
        queue = ask(jobs)
        if queue.complaint and not silent:
            print(f"SLURM does not answer ({queue.complaint}); asking again", file=sys.stderr)
        silent = not queue.answered
        left = [job for job in jobs if queue.may_run(job)]
        if not any((known := queue.of(job)) is None or known.never is None for job in left):
            break
        time.sleep(POLL_SECONDS)
    settle(runs, queue)
    outcomes = {id(run): outcome(run, queue) for run in runs}
    failed = [run for run in runs if run.directory is not None and outcomes[id(run)].state != "done"]
    if failed:
        lines = (
            f"{' '.join(run.overrides)}: {outcomes[id(run)].state}: {outcomes[id(run)].reason}".rstrip(": ") for run in failed
        )
        raise RunFailed("\n".join(lines))
    return [finished_job(run) for run in runs]
