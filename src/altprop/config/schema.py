"""The root schema: which keys a configuration has and what they hold. First in the defaults list of ``conf/train.yaml``.

Without it a misspelt key in an experiment file would be merged silently. Groups whose nodes have a ``_target_`` are ``Any``
here; their keys are checked against the target's signature (:mod:`altprop.config.checks.validation`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from altprop.config.cluster import ClusterConfig, ResourcesConfig
from altprop.training.settings import TrainerSettings


def structured(cls: type) -> type:
    """The dataclass ``cls`` as OmegaConf takes it: not frozen (frozen nodes are read-only), ``Literal`` as its values' type.

    Choices of a ``Literal`` are checked by the validation, which names the nearest. A nested dataclass that may be null is
    ``Any``, because OmegaConf cannot merge a mapping from the command line into a typed null; the validation checks it as well.
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
    """Where things are read and written; nothing else decides that."""

    data: str = MISSING
    """Folder of the data sets."""
    outputs: str = MISSING
    """Folder of the runs: ``<outputs>/<name>/<key>``."""


@dataclass
class RootConfig:
    """The keys of a training configuration."""

    dataset: Any = MISSING
    """What is learnt: a node of ``conf/dataset``."""
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
    logger: Any = None
    """Trackers by name, or null for the metrics file alone."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Where things are read and written."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the runs of a sweep go."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    """What one run needs."""
    task: Any = MISSING
    """What is done: a partial of a function of the built parts."""

    name: str = MISSING
    """Runs lie in ``<paths.outputs>/<name>/<key>``; an experiment's name is its path in ``conf/experiment``."""
    group: str | None = None
    """What the run is compared with in a tracker; null: its name. A sweep sets its own path."""
    seed: int = MISSING
    """Seed of every random stream."""
    resume: bool = True
    """Go on with, or skip, the same run; false: start it anew."""
    run: str | None = None
    """Directory of a run whose stored configuration is used instead."""
    tags: list[str] = field(default_factory=list)
    """Free words for the tracker."""
    paper: PaperConfig | None = None
    """The number of the paper that an experiment reproduces."""


@dataclass
class PaperConfig:
    """One number of a paper. Values that the paper does not give are null, so a row only states those it has."""

    reference: str = MISSING
    """The paper, as ``Author et al. (year)``."""
    table: str | None = None
    """Table or figure, and the row."""
    metric: str = MISSING
    """What was measured, as ``test/accuracy`` (percent)."""
    value: float | None = None
    """The paper's number."""
    std: float | None = None
    """Its standard deviation over seeds."""
    seeds: int | None = None
    """How many runs it is the mean of."""
    milestones: dict[str, Any] | None = None
    """Published values on the way: metric -> list of [epoch, value]."""


def register_schema() -> None:
    """Make ``schema`` known to Hydra's defaults lists."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
