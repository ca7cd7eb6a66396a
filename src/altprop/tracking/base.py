"""What a tracker is: something that mirrors a run's metrics somewhere. The metrics file is the record, the rest are mirrors.

Names that every tracker knows: ``train/loss``, ``train/accuracy``, ``train/learning_rate``, ``validation/loss``,
``validation/accuracy``, ``test/loss``, ``test/accuracy``, ``time/images_per_second`` and ``time/elapsed`` (seconds of this run).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

Status = Literal["running", "done", "failed", "preempted", "interrupted"]
Watched = Literal["gradients", "parameters", "all"]


@dataclass(frozen=True)
class RunInfo:
    """What trackers may know of a run. ``config`` is the resolved configuration as plain containers.

    A resumed run goes on from ``start_step``: what was recorded beyond it is recorded again. A record must therefore be logged
    before the checkpoint of its step is written.
    """

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
    start_step: int = 0


@dataclass(frozen=True)
class Histogram:
    """How the entries of one tensor are distributed: ``counts`` ``[bins]`` between ``edges`` ``[bins + 1]``."""

    counts: NDArray[Any]
    edges: NDArray[Any]


class Tracker:
    """Does nothing; the base of every tracker. Values arrive on the host, so no tracker ever synchronizes a device.

    All but inline trackers run in a thread of their own (:mod:`altprop.tracking.fanout`), which waits ``finish_timeout`` seconds
    for them at the end. ``watched`` asks for histograms of gradients or parameters with every record.
    """

    inline: ClassVar[bool] = False
    finish_timeout: float = 30.0
    watched: Watched | None = None

    def start(self, run: RunInfo) -> None:
        """Called once before the first record."""

    def log(self, record: Mapping[str, float]) -> None:
        """One record. ``epoch`` (finished epochs, may be fractional) and ``step`` are always in it; metrics are named
        ``train/loss``, ``train/accuracy`` (percent), ``validation/…``, ``test/…``, ``weights/…``, ``time/…``."""

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Called every few steps with what is cheap to know; only inline trackers get it. ``step`` counts finished steps."""

    def histograms(self, epoch: float, step: int, values: Mapping[str, Histogram]) -> None:
        """What was asked for by ``watched``, just before the record of the same step."""

    def figure(self, name: str, path: Path) -> None:
        """A figure was written to ``path``."""

    def preempting(self) -> None:
        """The run is about to be requeued."""

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Called once at the end, also after a failure; must not raise for a run that never started.

        ``summary`` holds the run's results, ``test/accuracy`` where a test was made, and ``step``, how far it has come.
        """
