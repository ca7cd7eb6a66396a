"""The root schema: the keys of a configuration and their types. It comes first in the defaults list of ``conf/train.yaml``.

Without it, a misspelled key in an experiment file would be merged silently. Groups whose nodes have a ``_target_`` are ``Any``
here; their arguments are checked against the target's signature (:mod:`altprop.config.checks.validation`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from altprop.ranges import FilePath, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Text, Workers
from altprop.training.settings import EarlyStopping, TrainerSettings


def structured(cls: type) -> type:
    """The dataclass ``cls`` in a form that OmegaConf accepts.

    The result is not frozen (frozen nodes are read-only), a ``Literal`` becomes the type of its values, and types have no ranges.
    Choices and ranges are checked in :mod:`altprop.config.checks`, which suggests the nearest. ``bool`` becomes ``Any``, because
    OmegaConf takes every number and ``yes`` for one, and :class:`.EarlyStopping` does, because OmegaConf cannot merge a mapping
    from the command line into a typed null; both are checked there, too.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for item in dataclasses.fields(cls):
        hint, default = _structured_type(hints[item.name]), item.default
        if item.default_factory is not dataclasses.MISSING:
            nested = isinstance(hint, type) and dataclasses.is_dataclass(hint)
            default = field(default_factory=hint if nested else item.default_factory)
        fields.append((item.name, hint, default))
    return dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)


def _structured_type(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _structured_type(arguments[0])
    if hint is bool:
        return Any
    if origin is Literal:
        return type(arguments[0])
    if origin is list:
        return list[_structured_type(arguments[0])]  # type: ignore[misc]
    if origin in (Union, UnionType):
        if EarlyStopping in arguments:
            return Any
        types = tuple(_structured_type(member) for member in arguments)
        return Any if Any in types else Union[types]  # noqa: UP007 - built from a tuple
    return structured(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else hint


@dataclass
class PathsConfig:
    """The folders of data and runs; no other key decides where altprop reads and writes."""

    data: FilePath = MISSING
    """Folder of the data sets."""
    outputs: FilePath = MISSING
    """Folder of the runs: ``<outputs>/<name>/<key>``."""


@dataclass
class ClusterConfig:
    """Where the runs of a sweep go. Put a site's own values in ``conf/local/default.yaml``."""

    workers: Workers | None = None
    """Runs of a local sweep that run at the same time; null: one per visible GPU, or as many as the cores allow."""
    per_gpu: PositiveInt = 1
    """Runs that share a GPU at the same time: in a local sweep, or in one SLURM job."""
    warm: bool = True
    """Whether a local sweep forks its runs from a process that has torch imported; otherwise each run imports it itself."""
    partition: Text | None = None
    """SLURM partition; null: the cluster's default."""
    account: Text | None = None
    """SLURM account that is charged."""
    qos: Text | None = None
    """SLURM quality of service."""
    constraint: Text | None = None
    """Features that a SLURM node must have."""
    time: PositiveInt = 240
    """Time limit of a job in minutes; before it ends, the run is saved and the job requeued."""
    signal_delay: NonNegativeInt = 120
    """Seconds before the end of ``time`` at which a job is signaled: longer than one step and one checkpoint take."""
    max_timeouts: NonNegativeInt = 10
    """How often a job that reached ``time`` is requeued. Preemptions do not count."""
    at_once: PositiveInt = 100
    """Jobs of one sweep that may run at the same time."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Additional options of sbatch: ``{reservation: name, exclusive: true}``."""
    setup: list[Text] = field(default_factory=list)
    """Shell commands before each job, such as ``module load cuda``."""
    snapshot: bool = True
    """Whether jobs run a copy of the code as it was when they were submitted."""
    wait: bool = False
    """Whether the command waits until the last job has ended; otherwise it returns after submitting."""


@dataclass
class ResourcesConfig:
    """The resources that one run needs."""

    nodes: Workers = 1
    """Number of machines."""
    processes: Workers = 1
    """Processes per machine; several of them split every mini-batch (data-parallel training)."""
    gpus: Annotated[int, Ge(0), Le(1024)] = 0
    """GPUs per machine."""
    cores: Workers = 2
    """CPU cores per process."""
    memory: PositiveInt | None = None
    """Memory per machine in GB; null: the cluster's default."""


@dataclass
class PaperConfig:
    """One published number. Values that the paper does not state are null, so a row contains only those that it states."""

    reference: Text = MISSING
    """The paper, as ``Author et al. (year)``."""
    table: Text | None = None
    """The table or figure and the row."""
    metric: Text = MISSING
    """The metric, such as ``test/accuracy`` (percent)."""
    value: FiniteFloat | None = None
    """The published value."""
    std: NonNegativeFloat | None = None
    """Its standard deviation over seeds."""
    seeds: PositiveInt | None = None
    """The number of runs that it is the mean of."""
    milestones: dict[str, Any] | None = None
    """Published values during training: metric -> list of [epoch, value]."""


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
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
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

    name: Text = MISSING
    """Runs are in ``<paths.outputs>/<name>/<key>``; an experiment's name is its path in ``conf/experiment``."""
    group: Text | None = None
    """The group of runs that a tracker compares this one with; null: its name. A sweep sets it to the sweep's path."""
    seed: Seed = MISSING
    """Seed of every random stream."""
    resume: bool = True
    """Whether to resume the same run, or skip it if it is done; false starts it again from scratch."""
    run: FilePath | None = None
    """Directory of a run whose stored configuration replaces this one."""
    trust_run: bool = False
    """Whether the configuration stored in ``run`` may name anything: its code is then imported and executed."""
    tags: list[Text] = field(default_factory=list)
    """Free-form tags for the tracker."""
    paper: PaperConfig | None = None
    """The published number that an experiment reproduces."""


def register_schema() -> None:
    """Register ``schema``, so that Hydra's defaults lists can name it."""
    ConfigStore.instance().store(name="schema", node=structured(RootConfig))
