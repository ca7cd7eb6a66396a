"""Several small runs in one SLURM job, which share its GPU (``cluster.per_gpu``)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from altprop.problems import RunFailed
from altprop.sweeping.command import PREEMPTION_SECONDS, TrainJob
from altprop.sweeping.jobs import SweepRun
from altprop.sweeping.outcome import ended_as, note_failure, settle_killed
from altprop.training.locks import SUBMISSION

POLL_SECONDS = 0.1
FORWARDED = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class PackJob(TrainJob):
    """Runs ``altprop train`` once for each of ``runs``, all at the same time, and ends with the last of them.

    A signal is passed on to every run, and each saves. If the signal asks for a requeue, the job is requeued when all runs have
    stopped, and resumes those that had not ended. If a run fails, the others continue, and the job fails in the end.
    """

    def __init__(self, runs: Sequence[SweepRun], *limits: Any) -> None:
        super().__init__([], *limits)
        self.runs = list(runs)
        self.codes: dict[int, int] = {}
        """Number of a run -> exit code, if it has ended by itself."""

    def __call__(self) -> None:
        self.started = time.time()
        received: list[int] = []
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's handler, which does not return
        processes: dict[int, subprocess.Popen[bytes]] = {}

        def stop(number: int, frame: object) -> None:
            received.append(number)
            _send(processes.values(), number)

        for forwarded in FORWARDED:
            signal.signal(forwarded, stop)
        for number in range(len(self.runs)):
            if number not in self.codes and not received:
                processes[number] = self._start(self.runs[number])
        if received:  # while they were started
            _send(processes.values(), received[-1])
        while self._running(processes, stopping=bool(received)):
            time.sleep(POLL_SECONDS)
        end = time.monotonic() + PREEMPTION_SECONDS
        while received and signal.SIGUSR2 not in received and time.monotonic() < end:
            time.sleep(POLL_SECONDS)  # if a job is preempted, SIGUSR2 may follow
        if signal.SIGUSR2 in received:
            self._hand_over(requeue)
        if received:
            raise SystemExit(128 + received[0])
        if failed := sum(map(bool, self.codes.values())):
            raise RunFailed(f"{failed} of {len(self.runs)} runs failed; each has a log of its own")

    def _running(self, processes: Mapping[int, subprocess.Popen[bytes]], *, stopping: bool) -> bool:
        """Whether a run is running. Notes those that have ended by themselves, also while others are told to stop."""
        codes = {number: process.poll() for number, process in processes.items()}
        for number, code in codes.items():
            if code is None or number in self.codes:
                continue
            if not stopping:
                self.codes[number] = code
                settle_killed(self.runs[number], code, self.started, "give it more with resources.memory=<GB>")
            elif word := ended_as(self.runs[number], self.started):  # the signal came while its process ended
                self.codes[number] = int(word == "failed")
        return None in codes.values()

    def _hand_over(self, requeue: Callable[[int, object], object] | int | None) -> None:
        """Let submitit requeue the job. If it may not be queued again, the runs that are not done have failed."""
        if not callable(requeue):
            return
        try:
            requeue(signal.SIGUSR2, None)
        except Exception as error:
            for run in self.runs:
                if run.status.get("status") != "done":
                    note_failure(run, str(error))
            raise

    def _start(self, run: SweepRun) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "altprop", "train"]
        return run.start(command, {SUBMISSION: self.submission}, continue_log=True)  # a requeued job has the same log


def _send(processes: Iterable[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
