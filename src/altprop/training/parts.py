"""The objects that a run consists of, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.optimization import OptimizerFactory
from altprop.algorithms.schedule import Schedule
from altprop.data.base import Data, LoadContext
from altprop.nn.metrics.base import Metric
from altprop.tracking.base import Tracker
from altprop.training.settings import TrainerSettings

ModelFactory = Callable[..., nn.Module]
"""Takes ``input_shape`` and ``num_classes`` and returns the model."""


class DataSet(Protocol):
    """A data set that can be loaded: a node of the config group ``dataset``."""

    def load(self, context: LoadContext) -> Data:
        """Read the images and return the splits."""


@dataclass(frozen=True)
class Parts:
    """The objects of one run and its identity. ``config`` is the resolved configuration as plain containers."""

    data_set: DataSet
    model_factory: ModelFactory
    algorithm: Algorithm
    optimizer_factory: OptimizerFactory
    schedule: Schedule
    trackers: Mapping[str, Tracker]
    settings: TrainerSettings
    data_root: Path
    outputs: Path
    name: str
    key: str
    seed: int
    group: str
    tags: tuple[str, ...]
    resume: bool
    config: Mapping[str, Any]
    config_text: str
    paper: Mapping[str, Any] | None = None
    extends: Path | None = None
    """The directory of the finished run that this run makes longer."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    """The directories and files whose weights or masks the run starts from, by configuration key."""

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.outputs / self.name / self.key
