"""A sweep on SLURM: one array job, submitted through submitit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from altprop.config.compose import composer_of
from altprop.config.project import home
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import command
from altprop.sweeping.command import TrainJob
from altprop.sweeping.jobs import Manifest, SweepRun, manifests, sweep_runs, unlisted
from altprop.sweeping.local import finished_job
from altprop.sweeping.outcome import WAITING, job_states, settle
from altprop.sweeping.snapshot import take_snapshot

POLL_SECONDS = 2.0
COMMON = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout")
"""Parameters that submitit knows for every kind of cluster; the others are passed to it as ``slurm_<name>``."""
TABLE_MINUTES = 30
SITE = ("partition", "account", "qos", "constraint")


class SubmissionRefused(RunFailed):
    """SLURM accepted none of the jobs."""


def launch(
    loader: ConfigLoader, config: DictConfig, parameters: Mapping[str, Any], job_overrides: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Submit every run that is neither finished nor in the queue. ``parameters`` are those of hydra-submitit-launcher.

    Returns at once, or with ``cluster.wait`` after the last job has ended.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError([Problem("cluster", "slurm, but there is no sbatch here", "where SLURM is, or local", "cluster=local")])
    parameters = {**parameters, **_collections(config)}
    planned = list(sweep_runs(composer_of(loader, config), job_overrides))
    runs = [run for run, _ in planned]
    unfinished = [run for run, finished in planned if not finished]
    outputs = Path(config.paths.outputs).absolute()
    queued = _find_queued(outputs, unfinished)
    left = [run for run in unfinished if run.job is None]
    folder = Path(config.hydra.sweep.dir).absolute()
    manifest = Manifest.begin(folder, config.group or config.name, "slurm", runs)
    summary = [f"{len(runs)} runs", f"{len(runs) - len(unfinished)} done already"]
    summary += [f"{queued} in the queue already"] if queued else []
    if left:
        code = take_snapshot(outputs / ".snapshots") if config.cluster.snapshot else home()
        manifest.job = _submit(left, folder, parameters, code)
        if manifest.table is not None:  # of an earlier batch; the new one waits for all of them
            subprocess.run(["scancel", "--state=PENDING", manifest.table], capture_output=True)
        manifest.table = _submit_tables(manifest, outputs, parameters, code)
        summary.append(f"{len(left)} submitted as job {manifest.job}")
    else:
        summary.append("nothing to submit")
    manifest.write()
    for line in unlisted(job_overrides, runs):
        print(line)
    print("; ".join(summary))
    print(f"status: {command('status')} folder={folder}")
    if config.cluster.wait:
        return _wait(runs)
    return [JobReturn(overrides=run.overrides, _return_value=None, status=JobStatus.COMPLETED) for run in runs]


def _collections(config: DictConfig) -> dict[str, Any]:
    """The settings that are lists or mappings: Hydra cannot interpolate these into the launcher's typed node."""
    cluster = config.cluster
    return {
        "setup": list(cluster.setup or ()),
        "additional_parameters": dict(cluster.sbatch or {}),
    }


def _find_queued(outputs: Path, runs: Sequence[SweepRun]) -> int:
    """Set ``job`` of the runs that an earlier command submitted and that may still run. Returns their number."""
    submitted: dict[str | None, str | None] = {None: None}
    for manifest in reversed(list(manifests(outputs))):
        submitted |= {run.directory: run.job for run in manifest.runs if run.directory and run.job}
    known = [job for run in runs if (job := submitted.get(run.directory)) is not None]
    states = job_states(known) if known else {}
    for run in runs:
        job = submitted.get(run.directory)
        if job is not None and states.get(job) in WAITING:
            run.job = job
    return sum(run.job is not None for run in runs)


def _submit(left: Sequence[SweepRun], folder: Path, parameters: Mapping[str, Any], code: Path) -> str:
    """Submit ``left`` as one array and set each run's job. Returns the number of the array."""
    executor = _executor(folder, parameters, code)
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
    with _refusals(), executor.batch():
        jobs = [executor.submit(TrainJob(run.arguments)) for run in left]
    for run, job in zip(left, jobs, strict=True):
        run.job, run.log = str(job.job_id), str(job.paths.stdout)
    return str(jobs[0].job_id).partition("_")[0]


def _submit_tables(manifest: Manifest, outputs: Path, parameters: Mapping[str, Any], code: Path) -> str:
    """Submit the job that writes the tables after every run of the sweep has ended, successful or not."""
    executor = _executor(manifest.folder, {**parameters, "cpus_per_task": 1}, code)
    site = {f"slurm_{name}": parameters[name] for name in SITE}
    # Options of sbatch take precedence, and a dependency of the runs would replace the dependency on the runs.
    additional = {name: value for name, value in parameters["additional_parameters"].items() if name != "dependency"}
    executor.update_parameters(
        name="altprop-table",
        timeout_min=TABLE_MINUTES,
        cpus_per_task=1,
        mem_gb=parameters["mem_gb"],
        stderr_to_stdout=True,
        slurm_dependency=f"afterany:{':'.join(_arrays(manifest))}",
        slurm_additional_parameters=additional,
        **site,
    )
    from submitit.helpers import CommandFunction

    with _refusals():
        status = [
            sys.executable,
            "-m",
            "altprop",
            "status",
            f"folder={manifest.folder}",
            "table=true",
            f"paths.outputs={outputs}",
        ]
        return str(executor.submit(CommandFunction(status)).job_id)


def _arrays(manifest: Manifest) -> list[str]:
    """The arrays that the table waits for: the newest, and those of earlier batches that may still run."""
    others = {run.job for run in manifest.runs if run.job is not None and run.job.partition("_")[0] != manifest.job}
    states = job_states(others) if others else {}
    left = {job.partition("_")[0] for job, state in states.items() if state in WAITING}
    return [*sorted(left), str(manifest.job)]


def _executor(folder: Path, parameters: Mapping[str, Any], code: Path) -> Any:
    from submitit import AutoExecutor

    executor = AutoExecutor(folder / ".submitit" / "%j", cluster="slurm", slurm_max_num_timeout=parameters["max_num_timeout"])
    folder_of_code, here = shlex.quote(str(code)), shlex.quote(os.getcwd())
    executor.update_parameters(
        slurm_setup=[
            *parameters["setup"],
            f"cd {folder_of_code}",
            # The current folder comes last: it may contain the user's own modules, which train.py and altprop find as well.
            f"export PYTHONPATH={folder_of_code}/src${{PYTHONPATH:+:$PYTHONPATH}}:{here}",
            f"export OMP_NUM_THREADS={parameters['cpus_per_task']}",
        ]
    )
    return executor


class _refusals:  # noqa: N801 - used like a function
    """Reports in one line why sbatch refused a job."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        if isinstance(error, (FailedJobError, FailedSubmissionError)):
            lines = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line]
            raise SubmissionRefused(f"SLURM refused the jobs: {'; '.join(lines) or error}") from None


def _wait(runs: Sequence[SweepRun]) -> list[JobReturn]:
    """Wait until every job has ended. Raises :class:`RunFailed` with one line for each run that is not done."""
    jobs = {run.job for run in runs if run.job is not None}
    while any(state in WAITING for state in job_states(jobs).values()):
        time.sleep(POLL_SECONDS)
    settle(runs)
    failed = [run for run in runs if run.directory is not None and run.status.get("status") != "done"]
    if failed:
        raise RunFailed("\n".join(f"{' '.join(run.overrides)}: {_reason(run)}" for run in failed))
    return [finished_job(run) for run in runs]


def _reason(run: SweepRun) -> str:
    status = run.status
    return f"{status.get('status', 'never started')}: {status.get('error', '')}".rstrip(": ")
