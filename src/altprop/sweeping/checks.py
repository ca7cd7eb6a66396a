"""Mistakes in the settings of a sweep, found before anything is written, started or submitted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from annotated_types import Ge
from omegaconf import DictConfig

from altprop.config.project import home
from altprop.config.schema import ClusterConfig, ResourcesConfig
from altprop.keys import is_within
from altprop.problems import Problem

UNUSABLE = "\n\r%\\"
"""Characters that SLURM cannot have in the name of a log file, or reads as a pattern."""


def check_whole_number(key: str, value: object, least: int) -> Iterator[Problem]:
    """Yield a problem if ``value`` is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        yield Problem(key, str(value), f"a whole number from {least} on")


def problems_of_numbers(config: DictConfig, *keys: str) -> Iterator[Problem]:
    """Every whole number below the range that its type has in the schema, without the checks of runs, which import torch.

    ``keys`` are nodes of ``config`` or single values in them: ``resources``, ``cluster.workers``.
    """
    for group, declared in (("resources", ResourcesConfig), ("cluster", ClusterConfig)):
        for name, hint in get_type_hints(declared, include_extras=True).items():
            value, key = config[group].get(name), f"{group}.{name}"
            if value is not None and is_within(key, keys) and (least := _least(hint)) is not None:
                yield from check_whole_number(key, value, least)


def _least(hint: Any) -> int | None:
    """The lower bound of the whole numbers in the type ``hint``; None if it has none."""
    members = [hint, *get_args(hint)]
    bounds = [bound.ge for member in members for bound in getattr(member, "__metadata__", ()) if isinstance(bound, Ge)]
    return cast("int", bounds[0]) if bounds else None


def problems_of_cluster(config: DictConfig) -> Iterator[Problem]:
    """Every problem of a sweep on SLURM: of ``config.cluster`` and of the folder for the logs of its jobs."""
    cluster = config.cluster
    if shutil.which("sbatch") is None:
        yield Problem("cluster", "slurm, but there is no sbatch here", "where SLURM is, or local", "cluster=local")
    yield from list(problems_of_numbers(config, "resources", "cluster")) or _conflicts(cluster, config.resources)
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
