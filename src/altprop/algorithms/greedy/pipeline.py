"""The worker processes of distributed greedy learning, as the first process sees them: start, send, fetch reports, stop."""

from __future__ import annotations

import atexit
import multiprocessing
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch.distributed

from altprop.algorithms.greedy.feature_channel import Batch, Mark, Outbox
from altprop.algorithms.greedy.packing import unpack
from altprop.algorithms.greedy.worker import STOP, TIMEOUT, WorkerPlan, main, pickled, process_group
from altprop.problems import RunFailed


class Pipeline:
    """Starts one process for each share of blocks after the first and talks to them.

    ``shares`` are the 0-based blocks of each worker, the first worker included. ``plan(rank, port)`` returns what a worker needs.
    """

    def __init__(self, shares: Sequence[range], capacity: int, plan: Callable[[int, int], WorkerPlan]) -> None:
        self.shares = shares
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        spawn = multiprocessing.get_context("spawn")
        self.processes: list[Any] = []
        self.pipes = []
        for rank in range(1, len(shares)):
            mine, theirs = spawn.Pipe(duplex=False)
            process = spawn.Process(target=main, args=(pickled(plan(rank, store.port)), theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(mine)
        self.at_exit = partial(_end, weakref.WeakMethod(self.stop), self.processes)
        atexit.register(self.at_exit)
        self.store = store  # must stay alive, because the workers connect through it
        self.outbox = Outbox(process_group(0, len(shares), store), 1, capacity)

    @property
    def running(self) -> bool:
        """Whether the processes have not been stopped."""
        return bool(self.processes)

    def send(self, message: Batch | Mark) -> None:
        """Send ``message`` to the next worker. Raises RunFailed if a worker has failed."""
        try:
            self.outbox.send(message)
        except RuntimeError as error:
            raise RunFailed(self._complaint() or f"a worker of algorithm=distributed_greedy is gone: {error}") from error

    def fetch(self, command: int, value: int) -> list[dict[str, Any]]:
        """Send ``command`` and return the reports of all workers after the first. Raises RunFailed if a worker has failed."""
        if self.running:
            self.send(Mark(command, value))
        reports = []
        for blocks, pipe in zip(self.shares[1:], self.pipes, strict=True):
            try:
                report = unpack(pipe.recv())
            except EOFError:
                report = {"error": "it is gone"}
            if "error" in report:
                raise RunFailed(_failure(blocks, report))
            reports.append(report)
        return reports

    def _complaint(self) -> str | None:
        """Return the error of a worker that has failed, or None if there is no such report."""
        for blocks, pipe in zip(self.shares[1:], self.pipes, strict=True):
            try:
                while pipe.poll(1.0):
                    report = pipe.recv()
                    if "error" in report:
                        return _failure(blocks, report)
            except EOFError:
                continue
        return None

    def stop(self) -> None:
        """End all processes. Does nothing if they have been stopped already."""
        if not self.running:
            return
        atexit.unregister(self.at_exit)
        with suppress(RuntimeError, RunFailed):  # a worker that has failed does not receive this
            self.send(Mark(STOP, 0))
            self.outbox.flush()
        for process in self.processes:
            process.join(timeout=10)
        _end(None, self.processes)
        self.processes = []


def _failure(blocks: range, report: dict[str, Any]) -> str:
    return f"the worker of blocks {blocks.start + 1} to {blocks.stop} failed: {report['error']}"


def _end(stop: Callable[[], Callable[[], None] | None] | None, processes: Iterable[Any]) -> None:
    """Call the method that ``stop`` refers to if its object still exists, and kill the processes that are left."""
    method = None if stop is None else stop()
    if method is not None:
        method()
    for process in processes:
        if process.is_alive():
            process.kill()
