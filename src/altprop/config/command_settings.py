"""The keys of the commands besides ``train``, with their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from altprop.ranges import FilePath, ImageSize, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Text, Workers


@dataclass
class EvaluateSettings:
    """The keys of ``conf/evaluate.yaml``."""

    run: FilePath
    split: Literal["test", "validation", "train"]
    checkpoint: Literal["auto", "last", "best"]
    device: Text
    threads: Workers | None
    limit_batches: PositiveInt | None
    figures: bool
    trust_run: bool


@dataclass
class ReportSettings:
    """The keys of ``conf/report.yaml``."""

    runs: Text | list[Text]
    group: Text | None
    metric: Text | None
    compare: Literal["last", "selected", "best"]
    formats: Text | list[Text] | None
    columns: list[Text] | None
    figures: bool
    to: FilePath


@dataclass
class StatusSettings:
    """The keys of ``conf/status.yaml``."""

    action: Text
    group: Text | None
    folder: FilePath | None
    run: NonNegativeInt | list[NonNegativeInt] | None
    only: Text | None
    every: Annotated[float, Ge(0), Le(1_000_000)]
    days: NonNegativeFloat
    delete: bool
    table: bool


@dataclass
class DataSettings:
    """The keys of ``conf/data.yaml``."""

    action: Text
    seed: Seed
    file: FilePath
    archives: FilePath
    folder: FilePath
    resize: ImageSize | None
    workers: Workers | None


COMMAND_SETTINGS: Mapping[str, type] = {
    "evaluate": EvaluateSettings,
    "report": ReportSettings,
    "status": StatusSettings,
    "data": DataSettings,
}
"""Command -> the dataclass of its keys."""
