"""Mistakes in the settings of a sweep, found before anything is written, started or submitted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from altprop.config.project import home
from altprop.problems import Problem

UNUSABLE = "\n\r%\\"
"""Characters that SLURM cannot have in the name of a log file, or reads as a pattern."""


def check_whole_number(key: str, value: object, least: int) -> Iterator[Problem]:
    """Yield a problem if ``value`` is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        yield Problem(key, str(value), f"a whole number from {least} on")


def problems_of_resources(resources: DictConfig) -> Iterator[Problem]:
    """Every problem of ``config.resources``."""
    for key, least in (("nodes", 1), ("processes", 1), ("gpus", 0), ("cores", 1)):
        yield from check_whole_number(f"resources.{key}", resources[key], least)
    if resources.memory is not None:
        yield from check_whole_number("resources.memory", resources.memory, 1)


def problems_of_cluster(config: DictConfig) -> Iterator[Problem]:
    """Every problem of a sweep on SLURM: of ``config.cluster`` and of the folder for the logs of its jobs."""
    cluster = config.cluster
    if shutil.which("sbatch") is None:
        yield Problem("cluster", "slurm, but there is no sbatch here", "where SLURM is, or local", "cluster=local")
    numbers = list(problems_of_resources(config.resources))
    for key, least in (("time", 1), ("signal_delay", 0), ("max_timeouts", 0), ("at_once", 1), ("per_gpu", 1)):
        numbers += check_whole_number(f"cluster.{key}", cluster[key], least)
    yield from numbers or _conflicts(cluster, config.resources)
    outputs = str(Path(config.paths.outputs).absolute())
    if found := sorted(set(UNUSABLE) & set(outputs)):
        description = f"{outputs!r} contains {', '.join(map(repr, found))}"
        yield Problem("paths.outputs", description, "a folder whose name SLURM can write logs to")
    here, code = Path.cwd(), Path(outputs, ".snapshots", "copy") if cluster.snapshot else home()
    if importable(here, code) is None:
        description = f"the current folder {here} has a {os.pathsep!r} in its name, so jobs could not import from it"
        yield Problem("cluster", description, "a folder without it")


def _conflicts(cluster: DictConfig, resources: DictConfig) -> Iterator[Problem]:
    """Problems of several numbers together."""
    if cluster.per_gpu > 1 and resources.processes * resources.nodes * max(1, resources.gpus) > 1:
        description = f"{cluster.per_gpu} runs on one GPU, but each run has several processes or GPUs"
        yield Problem("cluster.per_gpu", description, "1 with these resources", "resources=gpu")
    elif cluster.per_gpu > 1 and resources.gpus == 0:
        yield Problem("cluster.per_gpu", f"{cluster.per_gpu}, but a run has no GPU", "1 on a CPU", "resources=gpu")
    if 60 * cluster.time <= cluster.signal_delay:
        description = f"{cluster.time} min is not longer than cluster.signal_delay, {cluster.signal_delay} s"
        least = cluster.signal_delay // 60 + 1
        yield Problem("cluster.time", description, "time to train before the job is told to stop", f"cluster.time={least}")


def importable(folder: Path, code: Path) -> str | None:
    """``folder`` in a form that ``PYTHONPATH`` can hold for processes that start in ``code``; None if there is none."""
    if os.pathsep not in str(folder):
        return str(folder)
    relative = os.path.relpath(folder, code)
    return None if os.pathsep in relative else relative
