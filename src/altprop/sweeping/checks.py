"""Mistakes in the settings of a sweep on SLURM, found before anything is written or submitted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from altprop.problems import Problem

UNUSABLE = "\n\r%\\"
"""Characters that SLURM cannot have in the name of a log file, or reads as a pattern."""


def problems_of_cluster(config: DictConfig) -> Iterator[Problem]:
    """Every problem of ``config.cluster`` and of the folder for the logs of its jobs."""
    cluster = config.cluster
    if shutil.which("sbatch") is None:
        yield Problem("cluster", "slurm, but there is no sbatch here", "where SLURM is, or local", "cluster=local")
    for key, least in (("time", 1), ("signal_delay", 0), ("max_timeouts", 0), ("at_once", 1)):
        if cluster[key] < least:
            yield Problem(f"cluster.{key}", str(cluster[key]), f"a whole number from {least} on")
    if cluster.time >= 1 and 60 * cluster.time <= cluster.signal_delay:
        description = f"{cluster.time} min is not longer than cluster.signal_delay, {cluster.signal_delay} s"
        least = cluster.signal_delay // 60 + 1
        yield Problem("cluster.time", description, "time to train before the job is told to stop", f"cluster.time={least}")
    outputs = str(Path(config.paths.outputs).absolute())
    if found := sorted(set(UNUSABLE) & set(outputs)):
        description = f"{outputs!r} contains {', '.join(map(repr, found))}"
        yield Problem("paths.outputs", description, "a folder whose name SLURM can write logs to")
