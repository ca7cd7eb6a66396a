"""One job of a sweep as submitit stores it: the command line of one run."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any

from altprop.problems import RunFailed
from altprop.training.locks import SUBMISSION

CHECK_SECONDS = 32.0
"""SLURM looks at time limits every 30 s, so it may send the signal that much earlier than ``signal_delay``."""
PREEMPTION_SECONDS = 2.0
"""How soon the signal to requeue follows a SIGTERM if a job is preempted."""


class TrainJob:
    """Runs ``altprop train <arguments>`` in a process that submitit has set up, so that submitit can requeue the job."""

    def __init__(self, arguments: list[str], minutes: int = 0, signal_delay: float = 0.0, max_timeouts: int = 0) -> None:
        """
        Args:
            arguments: Those of ``train.py``.
            minutes: The time limit of the job.
            signal_delay: Seconds before the limit at which the job is told.
            max_timeouts: How often a job that reached its limit is queued again.
        """
        self.arguments = arguments
        self.minutes = minutes
        self.signal_delay = signal_delay
        self.timeouts_left = max_timeouts
        self.submission = uuid.uuid4().hex
        self.started = 0.0

    def __call__(self) -> None:
        self.started = time.time()
        os.environ[SUBMISSION] = self.submission
        _handle(signal.SIGTERM, _stop_starting)  # submitit ignores it; training installs its own handler later
        late = {signal.SIGTERM, signal.SIGUSR2}
        sys.argv = ["altprop", "train", *self.arguments]
        try:
            runpy.run_module("altprop", run_name="__main__")
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGTERM:
                late.remove(signal.SIGUSR2)  # may follow if the job is preempted
            raise
        finally:
            for number in late:  # everything is saved, and SLURM sends SIGTERM to a job that it requeues
                _handle(number, signal.SIG_IGN)

    @property
    def timed_out(self) -> bool:
        """Whether a signal that arrives now is that of the time limit, not a preemption."""
        end = float(os.environ.get("SLURM_JOB_END_TIME") or self.started + 60 * self.minutes)
        return end - time.time() <= self.signal_delay + CHECK_SECONDS

    def checkpoint(self) -> Any:
        """The job after a requeue: the same command, which resumes from the newest checkpoint in the run directory.

        Raises :class:`RunFailed` if the time limit was reached too often.
        """
        from submitit.helpers import DelayedSubmission

        if self.timed_out:
            self.timeouts_left -= 1
        if self.timeouts_left < 0:
            raise RunFailed(
                "timed-out too many times (cluster.max_timeouts); everything is saved, and the same command resumes it; "
                "raise cluster.time to be stopped less often"
            )
        return DelayedSubmission(self)


def _handle(number: signal.Signals, handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def _stop_starting(number: int, frame: FrameType | None) -> None:
    """End the process, unless the cluster asks within a moment to requeue the job."""
    time.sleep(PREEMPTION_SECONDS)
    print("stopped by SIGTERM before training began; the same command starts it again", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)
