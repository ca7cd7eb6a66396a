"""Distribution of a run's metrics to all trackers: metrics file and console directly, others in their own threads."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.problems import first_line_of
from altprop.tracking.base import Histogram, RunInfo, Status, Tracker, Watched
from altprop.tracking.metrics_file import MetricsFile

logger = logging.getLogger(__name__)

CAPACITY = 1000
"""Calls queued for a slow tracker before further calls are dropped."""
QUIET_WAIT = 2.0
"""Seconds to wait at the end of a run before a message says so."""
BINS = 64
"""Bins of a histogram."""


class Trackers(Tracker):
    """Passes every call to the metrics file and to all ``trackers`` (name in the config group ``logger`` -> tracker).

    Inline trackers are called directly. Each of the others processes a bounded queue in its own thread, so that a slow or
    unreachable service never delays training. A tracker that raises is reported once, in one line, and switched off. Only the
    metrics file is the record, so its OSError is raised.
    """

    inline = True

    def __init__(self, trackers: Mapping[str, Tracker], run_directory: Path) -> None:
        self.metrics_file = MetricsFile(Path(run_directory))
        self._inline = [_Guarded(name, tracker) for name, tracker in trackers.items() if tracker.inline]
        self._threaded = [_Threaded(name, tracker) for name, tracker in trackers.items() if not tracker.inline]
        self._watching = [mirror for mirror in self._threaded if mirror.tracker.watched]
        self._model: nn.Module | None = None
        self._finished = False

    def start(self, run: RunInfo) -> None:
        """Start every tracker, the metrics file first, because the others may read its remaining records."""
        self.metrics_file.start(run)
        self._call("start", run)

    def watch(self, model: nn.Module) -> None:
        """Send histograms of ``model`` with every record to the trackers that request them.

        Called once, after setup. Reads the tensors from the device with every record if there is such a tracker.
        """
        self._model = model

    def log(self, record: Mapping[str, float]) -> None:
        """Write the record, then mirror it. Raises OSError if the metrics file cannot be written."""
        values = dict(record)
        self.metrics_file.log(values)
        if self._model is not None:
            for mirror in self._watching:
                if mirror.active:
                    histograms = histograms_of(self._model, mirror.tracker.watched)
                    mirror.call("histograms", values["epoch"], int(values["step"]), histograms)
        self._call("log", values)

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Report progress to the inline trackers only."""
        for mirror in self._inline:
            mirror.call("progress", epoch, step, values)

    def figure(self, name: str, path: Path) -> None:
        """Tell all trackers that a figure was written to ``path``."""
        self._call("figure", name, path)

    def preempting(self) -> None:
        """Tell all trackers that the run is about to be requeued."""
        self._call("preempting")

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Finish all trackers. Waits for each thread at most the tracker's ``finish_timeout`` seconds, counted from now.

        Only the first call has an effect, because a requeued run finishes before the scheduler's handler ends the process.
        """
        if self._finished:
            return
        self._finished = True
        began = time.monotonic()
        values = dict(summary)
        for mirror in self._threaded:
            mirror.finish(status, values)
        try:
            self.metrics_file.finish(status, values)
        finally:
            for guarded in self._inline:
                guarded.call("finish", status, values)
            for mirror in self._threaded:
                mirror.wait(began)

    def _call(self, method: str, *arguments: Any) -> None:
        for mirror in (*self._inline, *self._threaded):
            mirror.call(method, *arguments)


class _Guarded:
    """A tracker that is switched off after its first failure, which is reported once."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self.tracker = tracker
        self.active = True

    def call(self, method: str, *arguments: Any) -> None:
        """Call ``method`` unless the tracker is switched off."""
        if self.active:
            self._guard(method, *arguments)

    def _guard(self, method: str, *arguments: Any) -> None:
        function: Callable[..., None] = getattr(self.tracker, method)
        try:
            function(*arguments)
        except (Exception, SystemExit) as error:  # Rich exits if standard output is a closed pipe
            self.switch_off(f"{type(error).__name__}: {first_line_of(error.__context__ or error) or 'no message'}")

    def switch_off(self, reason: str) -> None:
        """Log the reason once, and make no further calls."""
        if self.active:
            self.active = False
            logger.warning("logger.%s is switched off for the rest of this run: %s", self.name, reason)


class _Threaded(_Guarded):
    """A guarded tracker whose calls are made one after the other in its own daemon thread."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name, tracker)
        self._calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(CAPACITY)
        self._end: tuple[Status, Mapping[str, Any]] | None = None
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def call(self, method: str, *arguments: Any) -> None:
        if not self.active:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"altprop-{self.name}", daemon=True)
            self._thread.start()
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._dropped += 1

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Ask the thread to finish the tracker after its queue is empty, even if the tracker is switched off."""
        self._end = (status, summary)
        with contextlib.suppress(queue.Full):  # if the queue is full, the thread is awake already
            self._calls.put_nowait(("", ()))

    def wait(self, began: float) -> None:
        """Wait for the thread until ``finish_timeout`` seconds after the monotonic time ``began``, then abandon it."""
        if self._thread is None:
            return
        deadline = began + self.tracker.finish_timeout
        self._thread.join(min(QUIET_WAIT, max(0.0, deadline - time.monotonic())))
        if self._thread.is_alive() and deadline > time.monotonic():
            logger.info("waiting for logger.%s, at most %.0f s", self.name, self.tracker.finish_timeout)
            self._thread.join(deadline - time.monotonic())
        if self._thread.is_alive():
            self.switch_off(f"it did not finish within {self.tracker.finish_timeout:g} s; metrics.jsonl is complete")
        elif self._dropped:
            logger.warning("logger.%s was too slow and missed %d calls; metrics.jsonl is complete", self.name, self._dropped)

    def _work(self) -> None:
        try:
            while self._end is None or not self._calls.empty():
                method, arguments = self._calls.get()
                if method and self.active:
                    self._guard(method, *arguments)
            # Even a tracker that failed may hold files or processes to close, and closing them may fail as well.
            self._guard("finish", *self._end)
        except BaseException as error:  # a library's sys.exit() would end the thread silently
            self.switch_off(f"{type(error).__name__}: {first_line_of(error) or 'no message'}")


def histograms_of(model: nn.Module, watched: Watched | None) -> dict[str, Histogram]:
    """Return the histograms requested by ``watched``, named ``gradients/<parameter>`` and ``parameters/<parameter>``.

    Gradients are those of the last step, as passed to the optimizer; parameters without a gradient are omitted. Reads every
    tensor from the device.
    """
    histograms = {}
    for name, parameter in model.named_parameters():
        if watched in ("gradients", "all") and parameter.grad is not None:
            histograms[f"gradients/{name}"] = histogram(parameter.grad)
        if watched in ("parameters", "all"):
            histograms[f"parameters/{name}"] = histogram(parameter)
    return histograms


def histogram(values: Tensor, bins: int = BINS) -> Histogram:
    """Count the finite entries of ``values`` (any shape) in ``bins`` equal bins from the smallest to the largest entry.

    If all entries are equal, the bins span a range of width 1 around them.
    """
    flat = values.detach().float().flatten().cpu()
    flat = flat[torch.isfinite(flat)]
    low, high = (float(flat.min()), float(flat.max())) if len(flat) else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = torch.histogram(flat, bins, range=(low, high))
    return Histogram(counts.numpy(), edges.numpy())
