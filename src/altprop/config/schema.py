"""The root schema: the keys of a configuration and their types. It comes first in the defaults list of ``conf/train.yaml``.

Without it, a misspelled key in an experiment file would be merged silently. Groups whose nodes have a ``_target_`` are ``Any``
here; their arguments are checked against the target's signature (:mod:`altprop.config.checks.validation`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from altprop.training.settings import TrainerSettings


def structured(cls: type) -> type:
    """The dataclass ``cls`` in a form that OmegaConf accepts.

    The result is not frozen (frozen nodes are read-only), and a ``Literal`` becomes the type of its values. The choices of a
    ``Literal`` are checked in :mod:`altprop.config.checks`, which suggests the nearest. A nested dataclass that may be null
    becomes ``Any``, because OmegaConf cannot merge a mapping from the command line into a typed null; it is checked there, too.
    """
    hints = get_type_hints(cls)
    fields = []
    for item in dataclasses.fields(cls):
        default = item.default if item.default_factory is dataclasses.MISSING else field(default_factory=item.default_factory)
        fields.append((item.name, _structured_type(hints[item.name]), default))
    return dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)


def _structured_type(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        if any(dataclasses.is_dataclass(member) for member in get_args(hint)):
            return Any
        return Union[tuple(_structured_type(member) for member in get_args(hint))]  # noqa: UP007 - built from a tuple
    return hint


TrainerConfig = structured(TrainerSettings)


@dataclass
class PathsConfig:
    """The folders of data and runs; no other key decides where altprop reads and writes."""

    data: str = MISSING
    """Folder of the data sets."""
    outputs: str = MISSING
    """Folder of the runs: ``<outputs>/<name>/<key>``."""


@dataclass
class ClusterConfig:
    """Where the runs of a sweep go. Put a site's own values in ``conf/local/default.yaml``."""

    workers: int | None = None
    """Runs of a local sweep that run at the same time; null: one per visible GPU, or as many as the cores allow."""
    partition: str | None = None
    """SLURM partition; null: the cluster's default."""
    account: str | None = None
    """SLURM account that is charged."""
    qos: str | None = None
    """SLURM quality of service."""
    constraint: str | None = None
    """Features that a SLURM node must have."""
    time: int = 240
    """Time limit of a job in minutes; before it ends, the run is saved and the job requeued."""
    signal_delay: int = 120
    """Seconds before the end of ``time`` at which a job is signaled: longer than one step and one checkpoint take."""
    max_timeouts: int = 10
    """How often a job that reached ``time`` is requeued. Preemptions do not count."""
    at_once: int = 100
    """Jobs of one sweep that may run at the same time."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Additional options of sbatch: ``{reservation: name, exclusive: true}``."""
    setup: list[str] = field(default_factory=list)
    """Shell commands before each job, such as ``module load cuda``."""
    snapshot: bool = True
    """Whether jobs run a copy of the code as it was when they were submitted."""
    wait: bool = False
    """Whether the command waits until the last job has ended; otherwise it returns after submitting."""


@dataclass
class ResourcesConfig:
    """The resources that one run needs."""

    nodes: int = 1
    """Number of machines."""
    processes: int = 1
    """Processes per machine; several of them split every mini-batch (data-parallel training)."""
    gpus: int = 0
    """GPUs per machine."""
    cores: int = 2
    """CPU cores per process."""
    memory: int | None = None
    """Memory per machine in GB; null: the cluster's default."""


@dataclass
class RootConfig:
    """The keys of a training configuration."""

    dataset: Any = MISSING
    """What is learned: a node of ``conf/dataset``."""
    model: Any = MISSING
    """What is computed: a node of ``conf/model``."""
    algorithm: Any = MISSING
    """How the model is trained: a node of ``conf/algorithm``."""
    optimizer: Any = MISSING
    """A partial of a class of ``torch.optim``."""
    schedule: Any = MISSING
    """The learning rate over the run: a node of ``conf/schedule``."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)  # type: ignore[valid-type]
    """Length, device, numerics, evaluation, checkpoints."""
    metrics: Any = None
    """Metrics besides loss and accuracy by name, or null: nodes of ``conf/metrics``."""
    logger: Any = None
    """Trackers by name, or null for the metrics file alone."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """The folders of data and runs."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the runs of a sweep go."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    """What one run needs."""
    task: Any = MISSING
    """What to do: a partial of a function that takes the built parts."""

    name: str = MISSING
    """Runs are in ``<paths.outputs>/<name>/<key>``; an experiment's name is its path in ``conf/experiment``."""
    group: str | None = None
    """The group of runs that a tracker compares this one with; null: its name. A sweep sets it to the sweep's path."""
    seed: int = MISSING
    """Seed of every random stream."""
    resume: bool = True
    """Whether to resume the same run, or skip it if it is done; false starts it again from scratch."""
    run: str | None = None
    """Directory of a run whose stored configuration replaces this one."""
    trust_run: bool = False
    """Whether the configuration stored in ``run`` may name anything: its code is then imported and executed."""
    tags: list[str] = field(default_factory=list)
    """Free-form tags for the tracker."""
    paper: PaperConfig | None = None
    """The published number that an experiment reproduces."""


@dataclass
class PaperConfig:
    """One published number. Values that the paper does not state are null, so a row contains only those that it states."""

    reference: str = MISSING
    """The paper, as ``Author et al. (year)``."""
    table: str | None = None
    """The table or figure and the row."""
    metric: str = MISSING
    """The metric, such as ``test/accuracy`` (percent)."""
    value: float | None = None
    """The published value."""
    std: float | None = None
    """Its standard deviation over seeds."""
    seeds: int | None = None
    """The number of runs that it is the mean of."""
    milestones: dict[str, Any] | None = None
    """Published values during training: metric -> list of [epoch, value]."""


def register_schema() -> None:
    """Register ``schema``, so that Hydra's defaults lists can name it."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
