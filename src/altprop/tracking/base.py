"""The interface of trackers, which receive a run's metrics. The metrics file is the record; all other trackers mirror it.

Metrics that every tracker knows: ``train/loss``, ``train/accuracy``, ``train/learning_rate`` (of the last step before the
record), ``validation/loss``, ``validation/accuracy``, ``test/loss``, ``test/accuracy``, ``time/images_per_second`` and
``time/elapsed`` (seconds of this run).
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
    """Facts about a run for its trackers. ``config`` is the resolved configuration as plain containers.

    A resumed run continues at ``start_step``, and logs again what was recorded after it. A record must therefore be logged before
    the checkpoint of its step is written.
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
    records: int = 0
    """Number of records of steps 1 to ``start_step`` that the run has logged; 0 if that is not known."""


@dataclass(frozen=True)
class Histogram:
    """The distribution of a tensor's entries: ``counts`` ``[bins]`` between ``edges`` ``[bins + 1]``."""

    counts: NDArray[Any]
    edges: NDArray[Any]


class Tracker:
    """Base class of trackers; does nothing. Values are passed as host numbers, so no tracker ever synchronizes a device.

    Each tracker runs in its own thread (:mod:`altprop.tracking.fanout`) unless it is ``inline``. At the end of a run, it gets
    ``finish_timeout`` seconds to finish. ``watched`` requests histograms of gradients or parameters with every record.
    """

    inline: ClassVar[bool] = False
    finish_timeout: float = 30.0
    watched: Watched | None = None

    def start(self, run: RunInfo) -> None:
        """Called once, before the first record."""

    def log(self, record: Mapping[str, float]) -> None:
        """Called with each record.

        It always contains ``epoch`` (finished epochs, possibly fractional) and ``step``. Metrics are named ``train/loss``,
        ``train/accuracy`` (percent), ``validation/…``, ``test/…``, ``weights/…``, ``time/…``.
        """

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Called every few steps with values that are cheap to get; inline trackers only. ``step`` counts finished steps."""

    def histograms(self, epoch: float, step: int, values: Mapping[str, Histogram]) -> None:
        """Called with the histograms requested by ``watched``, just before the record of the same step."""

    def figure(self, name: str, path: Path) -> None:
        """Called after a figure was written to ``path``."""

    def preempting(self) -> None:
        """Called when the run is about to be requeued."""

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Called once at the end, even after a failure. Must not raise if the run never started.

        ``summary`` holds the run's results: ``test/accuracy`` if it was tested, and ``step``, the number of finished steps.
        """
