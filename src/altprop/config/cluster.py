"""The config groups ``cluster`` (where the runs of a sweep go) and ``resources`` (what each of them needs)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClusterConfig:
    """Where the runs of a sweep go. A site's own values belong into ``conf/local/default.yaml``."""

    workers: int | None = None
    """Local sweeps: runs at the same time; null: one per visible GPU, or as many as the cores allow."""
    partition: str | None = None
    """SLURM partition; null: the cluster's default."""
    account: str | None = None
    """Who is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    time: int = 240
    """Minutes that a job may run at a time; it is stopped before, saved, and queued again."""
    signal_delay: int = 120
    """Seconds before the end of ``time`` at which a job is told: more than one step and one checkpoint take."""
    max_timeouts: int = 10
    """How often a job that reached ``time`` is queued again. Preemptions do not count."""
    at_once: int = 100
    """Runs of one sweep that may run at the same time."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch: ``{reservation: name, exclusive: true}``."""
    setup: list[str] = field(default_factory=list)
    """Shell commands before each job, such as ``module load cuda``."""
    snapshot: bool = True
    """Jobs run a copy of the code as it was when they were submitted."""
    wait: bool = False
    """true: stay until the last job has ended; false: return after submitting."""


@dataclass
class ResourcesConfig:
    """What one run needs."""

    nodes: int = 1
    """Machines."""
    processes: int = 1
    """Processes per machine; several share out every mini-batch (data-parallel training)."""
    gpus: int = 0
    """GPUs per machine."""
    cores: int = 2
    """CPU cores per process."""
    memory: int | None = None
    """GB of memory per machine; null: the cluster's default."""
