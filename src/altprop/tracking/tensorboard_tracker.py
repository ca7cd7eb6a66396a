"""TensorBoard: scalars, figures and histograms in ``tensorboard/`` of the run directory. Needs the extra ``tensorboard``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from altprop.problems import Problem
from altprop.tracking.base import Histogram, RunInfo, Status, Tracker, Watched


class TensorBoard(Tracker):
    """Writes every value of a record against the step.

    A resumed run marks what was written beyond the step it goes on from as undone, which TensorBoard then hides.
    """

    def __init__(self, watch: Watched | None = None, finish_timeout: float = 30.0) -> None:
        self.watched = watch
        self.finish_timeout = finish_timeout
        self._writer: Any = None
        self._step = 0

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """The package is an optional extra."""
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
        """One point of every curve."""
        self._step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, self._step)

    def histograms(self, epoch: float, step: int, values: Mapping[str, Histogram]) -> None:
        """One histogram each."""
        for name, taken in values.items():
            centers = (taken.edges[:-1] + taken.edges[1:]) / 2
            self._writer.add_histogram_raw(
                name,
                min=float(taken.edges[0]),
                max=float(taken.edges[-1]),
                num=int(taken.counts.sum()),
                sum=float(taken.counts @ centers),
                sum_squares=float(taken.counts @ centers**2),
                bucket_limits=taken.edges[1:].tolist(),
                bucket_counts=taken.counts.tolist(),
                global_step=step,
            )

    def figure(self, name: str, path: Path) -> None:
        """An image, at the step of the last record."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(f"figures/{name}", pixels, self._step, dataformats="HWC")

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Write what is pending and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
