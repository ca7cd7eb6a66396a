"""Submitting to SLURM through submitit: the array of a sweep's runs, and the job that writes its table."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from altprop.config.quoting import quoted
from altprop.problems import RunFailed, message_of
from altprop.sweeping.checks import importable
from altprop.sweeping.command import TrainJob
from altprop.sweeping.jobs import Manifest, SweepRun
from altprop.sweeping.pack import PackJob

COMMON = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout")
"""Parameters that submitit knows for every kind of cluster; the others are passed to it as ``slurm_<name>``."""
TABLE_MINUTES = 30
OF_THE_RUNS = ("dependency", "hold", "begin", "array")
"""Options of sbatch that the table job does not take over."""
SITE = ("partition", "account", "qos", "constraint")
ALWAYS = 10**6
"""submitit's own limit of requeues: none, because :class:`TrainJob` counts. submitit counts preemptions of short jobs as well."""
REMEDIES = {
    r"Invalid job array specification": "shorter arrays: hydra.sweeper.max_batch_size=500, less than SLURM's MaxArraySize",
    r"job submit limit|MaxSubmit|QOSMaxSubmit|AssocMaxSubmit": "the same command submits the rest once some jobs have ended",
    r"[Ii]nvalid partition": "cluster.partition=<one that sinfo lists>",
    r"[Ii]nvalid account": "cluster.account=<one that sacctmgr show assoc user=$USER lists>",
    r"[Ii]nvalid qos": "cluster.qos=<one that sacctmgr show qos lists>",
    r"[Ii]nvalid (feature|constraint)": "another cluster.constraint",
    r"[Tt]ime ?limit": "a smaller cluster.time",
    r"node configuration|[Mm]emory specification|CPU count|More proc": "lower resources.cores, memory or gpus",
}
"""What sbatch says -> what to do."""


UNCLEAR = r"[Tt]imed out|Unable to contact|Zero Bytes|[Cc]onnection|[Cc]ommunication"
"""What sbatch says if it lost contact with SLURM, which may have taken the jobs."""


class SubmissionRefused(RunFailed):
    """sbatch reported no job: SLURM accepted none, or :class:`SubmissionUnclear`."""


class SubmissionUnclear(SubmissionRefused):
    """SLURM did not say whether it accepted the jobs, so some of them may be in the queue."""


def packed(left: Sequence[SweepRun], per_gpu: int) -> list[list[SweepRun]]:
    """``left`` in groups of ``per_gpu`` runs, each for one job. Sets the number of each run's job."""
    packs = [list(left[start : start + per_gpu]) for start in range(0, len(left), per_gpu)]
    for number, pack in enumerate(packs):
        for run in pack:
            run.member = number
    return packs


def submit_runs(packs: Sequence[Sequence[SweepRun]], folder: Path, parameters: Mapping[str, Any], code: Path) -> str:
    """Submit one job for each of ``packs`` as one array and set each run's job. Returns the number of the array.

    Raises :class:`SubmissionRefused`.
    """
    executor = _executor(folder, parameters, code)
    size = max(map(len, packs))
    memory = parameters["mem_gb"]
    parameters = {
        **parameters,
        "cpus_per_task": size * parameters["cpus_per_task"],
        "mem_gb": None if memory is None else size * memory,
    }
    processes = parameters["tasks_per_node"] * parameters["nodes"]
    # Since SLURM 22.05 srun does not inherit --cpus-per-task. If one process is lost, the others must not wait for it.
    srun = [f"--cpus-per-task={parameters['cpus_per_task']}", *(["--kill-on-bad-exit=1"] if processes > 1 else [])]
    executor.update_parameters(
        slurm_srun_args=srun,
        **{
            name if name in COMMON else f"slurm_{name}": value
            for name, value in parameters.items()
            if name not in ("submitit_folder", "max_num_timeout", "setup")
        },
    )
    limits = (parameters["timeout_min"], parameters["signal_delay_s"], parameters["max_num_timeout"])
    with refusals(), executor.batch():
        jobs = [executor.submit(_function(pack, limits)) for pack in packs]
    for pack, job in zip(packs, jobs, strict=True):
        for run in pack:
            run.job, run.submitting = str(job.job_id), False
            run.log = run.log or str(job.paths.stdout)
    return str(jobs[0].job_id).partition("_")[0]


def _function(pack: Sequence[SweepRun], limits: Sequence[Any]) -> TrainJob:
    return TrainJob(pack[0].arguments, *limits) if pack[0].log is None else PackJob(pack, *limits)


def submit_table(manifest: Manifest, outputs: Path, arrays: Sequence[str], parameters: Mapping[str, Any], code: Path) -> str:
    """Submit the job that writes the tables after every job of ``arrays`` has ended, successful or not. Returns its number."""
    executor = _executor(manifest.folder, {**parameters, "cpus_per_task": 1}, code)
    site = {f"slurm_{name}": parameters[name] for name in SITE}
    # Options of sbatch take precedence: a dependency of the runs would replace the dependency on the runs, which is enough.
    additional = {name: value for name, value in parameters["additional_parameters"].items() if name not in OF_THE_RUNS}
    executor.update_parameters(
        name="altprop-table",
        timeout_min=TABLE_MINUTES,
        cpus_per_task=1,
        mem_gb=parameters["mem_gb"],
        stderr_to_stdout=True,
        slurm_dependency=f"afterany:{':'.join(arrays)}",
        slurm_additional_parameters=additional,
        **site,
    )
    from submitit.helpers import CommandFunction

    with refusals():
        words = [f"folder={quoted(str(manifest.folder))}", "table=true", f"paths.outputs={quoted(str(outputs))}"]
        status = [sys.executable, "-m", "altprop", "status", *words]
        return str(executor.submit(CommandFunction(status)).job_id)


def _executor(folder: Path, parameters: Mapping[str, Any], code: Path) -> Any:
    from submitit import AutoExecutor

    executor = AutoExecutor(folder / ".submitit" / "%j", cluster="slurm", slurm_max_num_timeout=ALWAYS)
    executor.update_parameters(
        slurm_setup=[
            *parameters["setup"],
            f"cd {shlex.quote(str(code))}",
            # The current folder comes last: it may contain the user's own modules, which train.py and altprop find as well.
            # Relative, because PYTHONPATH cannot hold a folder whose name has a colon.
            f"export PYTHONPATH=src${{PYTHONPATH:+:$PYTHONPATH}}:{shlex.quote(importable(Path.cwd(), code) or '')}",
            f"export OMP_NUM_THREADS={parameters['cpus_per_task']}",
        ]
    )
    return executor


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Reports in one line why sbatch refused a job, and what to do."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.partition("error: ")[2].strip() for line in str(error).splitlines() if "sbatch: error" in line]
        reason = "; ".join(dict.fromkeys(lines))
        if not reason or re.search(UNCLEAR, reason):
            reason = reason or message_of(error) or "sbatch printed nothing"
            remedy = "the same command finds the jobs that it took and submits the rest"
            raise SubmissionUnclear(f"SLURM did not say whether it took the jobs: {reason}; {remedy}") from None
        remedy = next((remedy for words, remedy in REMEDIES.items() if re.search(words, reason)), "")
        raise SubmissionRefused(f"SLURM refused the jobs: {reason}{'; try: ' if remedy else ''}{remedy}") from None


@contextlib.contextmanager
def signals_postponed() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM, also those for sbatch, only after the block: jobs are never in the queue without a note."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
