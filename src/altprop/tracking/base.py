"""What a tracker is: something that mirrors a run's metrics somewhere. The metrics file is the record, the rest are mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["running", "done", "failed", "preempted", "interrupted"]


@dataclass(frozen=True)
class RunInfo:
    """What trackers may know of a run. ``config`` is the resolved configuration as plain containers."""

    key: str
    name: str
    directory: Path
    config: Mapping[str, Any]
    seed: int
    total_epochs: int
    steps_per_epoch: int
    resumed: bool
    group: str
    job_type: Literal["train", "eval"] = "train"
    tags: tuple[str, ...] = ()


class Tracker:
    """Does nothing; the base of every tracker. Values arrive on the host, so no tracker ever synchronises a device."""

    def start(self, run: RunInfo) -> None:
        """Called once before the first record."""

    def log(self, record: Mapping[str, float]) -> None:
        """One record. ``epoch`` (finished epochs, may be fractional) and ``step`` are always in it; metrics are named
        ``train/loss``, ``train/accuracy`` (percent), ``validation/…``, ``test/…``, ``weights/…``, ``time/…``."""

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Called every few steps with what is cheap to know; only the console uses it."""

    def figure(self, name: str, path: Path) -> None:
        """A figure was written to ``path``."""

    def preempting(self) -> None:
        """The run is about to be requeued."""

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Called once at the end, also after a failure; must not raise for a run that never started."""
