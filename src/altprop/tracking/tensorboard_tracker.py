"""TensorBoard: scalars, figures and histograms in the run directory's ``tensorboard/``. Needs the extra ``tensorboard``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from altprop.problems import Problem
from altprop.ranges import NonNegativeFloat
from altprop.tracking.base import Histogram, RunInfo, Status, Tracker, Watched


class TensorBoard(Tracker):
    """Writes every value of a record against the step.

    A resumed run marks everything after the step it resumes from as purged, which TensorBoard then hides.

    Args:
        watch: Tensors to write histograms of: ``gradients``, ``parameters``, ``all``, or None.
        finish_timeout: Seconds to wait for pending writes at the end of a run.
    """

    def __init__(self, *, watch: Watched | None = None, finish_timeout: NonNegativeFloat = 30.0) -> None:
        self.watched = watch
        self.finish_timeout = finish_timeout
        self._writer: Any = None
        self._step = 0

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem if the optional package is not installed."""
        if find_spec("tensorboard") is None:
            yield Problem(
                "logger.tensorboard",
                "the package tensorboard is not installed",
                "install it or choose another logger",
                "pip install tensorboard, or logger=console",
            )

    def start(self, run: RunInfo) -> None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._step = run.start_step
        purge_step = run.start_step + 1 if run.resumed else 0
        self._writer = SummaryWriter(run.directory / "tensorboard", purge_step=purge_step)

    def log(self, record: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        self._step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, self._step)

    def histograms(self, epoch: float, step: int, values: Mapping[str, Histogram]) -> None:
        """Add one histogram per tensor."""
        for name, histogram in values.items():
            centers = (histogram.edges[:-1] + histogram.edges[1:]) / 2
            self._writer.add_histogram_raw(
                name,
                min=float(histogram.edges[0]),
                max=float(histogram.edges[-1]),
                num=int(histogram.counts.sum()),
                sum=float(histogram.counts @ centers),
                sum_squares=float(histogram.counts @ centers**2),
                bucket_limits=histogram.edges[1:].tolist(),
                bucket_counts=histogram.counts.tolist(),
                global_step=step,
            )

    def figure(self, name: str, path: Path) -> None:
        """Add an image at the step of the last record."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(f"figures/{name}", pixels, self._step, dataformats="HWC")

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Write pending events and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
