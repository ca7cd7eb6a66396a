"""The process that the runs of a local sweep are forked from: it has torch and altprop imported, so a run starts at once.

The server never computes a run, never touches CUDA and has one thread, so that a process forked from it is like one that has
just imported everything. :func:`serve` returns only in the forked processes, which then do what ``train.py`` does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from altprop.config.plain import to_plain
from altprop.names import targets_in

MODULES = (
    *("torch", "torch._dynamo", "pydantic", "rich.console", "rich.live", "rich.progress", "rich.table"),
    *("altprop.config.build", "altprop.training.run", "altprop.training.isolation", "altprop.commands.train"),
)
"""What every run imports, some of it late: ``torch.optim`` imports ``torch._dynamo``."""
OURS = ("altprop.", "torch.")
FORK_SAFE = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With this variable, torch counts GPUs without initializing CUDA, after which a process could not be forked."""


@dataclass(frozen=True)
class Order:
    """A run to be started: what ``train.py`` would get as ``arguments``, and the file for its output."""

    number: int
    arguments: list[str]
    log: str
    config: Mapping[str, Any] | None = None
    """Its composed configuration, unresolved, if only altprop and torch are configured; None: it has to be composed."""


@dataclass(frozen=True)
class Report:
    """A message from the server: it is ready, or the run ``number`` was started as ``process`` or ended with ``code``."""

    kind: Literal["ready", "started", "ended"]
    number: int = -1
    process: int = 0
    code: int = 0


def serve(descriptor: int) -> Order:
    """Import what runs need, and fork one process for each order that comes from the socket ``descriptor``.

    Returns in the forked processes, with their order. The server itself exits when the command that started it has ended, after
    its runs have saved and stopped.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number in handlers:  # a terminal sends these to all processes; the command decides what happens to the runs
        signal.signal(number, signal.SIG_IGN)
    with _fork_safe():
        _import(MODULES)
    _require_one_thread()
    os.set_inheritable(descriptor, False)
    server = _Server(Connection(descriptor))
    server.connection.send(Report("ready"))
    order = server.run()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return order


class _Server:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.runs: dict[int, int] = {}
        """Process -> number of its run."""
        self.rehearsed: set[frozenset[str]] = set()
        self.life = os.pipe()
        """A pipe whose writing end only the server has open, so that its processes notice when it ends."""
        self.woken = os.pipe()
        """Gets a byte whenever a process has ended."""
        for end in self.woken:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.woken[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> Order:
        with suppress(EOFError, OSError):  # the command has ended
            while True:
                ready = wait([self.connection, self.woken[0]])
                self._report_ended()
                if self.connection in ready:
                    order: Order = self.connection.recv()
                    self._rehearse(order)
                    try:
                        process = self._fork()
                    except OSError as error:
                        self._fail(order, error)
                        continue
                    if process == 0:
                        return self._in_the_run(order)
                    self.runs[process] = order.number
                    self.connection.send(Report("started", order.number, process))
        for process in self.runs:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        for process in self.runs:
            os.waitpid(process, 0)
        sys.exit(0)

    def _fail(self, order: Order, error: OSError) -> None:
        """Report that the system has no memory or no process for one more run, which leaves the others alone."""
        with suppress(OSError):
            line = f"the run could not be started: {error.strerror}; let fewer run at a time with cluster.workers"
            Path(order.log).write_text(f"{line}\n")
        self.connection.send(Report("ended", order.number, code=1))

    def _report_ended(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.woken[0], 4096)
        for process in list(self.runs):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                number = self.runs.pop(process)
                self.connection.send(Report("ended", number, process, os.waitstatus_to_exitcode(status)))

    def _rehearse(self, order: Order) -> None:
        """Import what the run will import and check its configuration, so that later runs need not do it."""
        if order.config is None:
            return
        with _fork_safe(), suppress(Exception):  # the run itself reports what is wrong
            plain, _ = to_plain(OmegaConf.create(dict(order.config)))
            targets = frozenset(targets_in(plain))
            if targets not in self.rehearsed:
                self.rehearsed.add(targets)
                rehearse(plain)
                _require_one_thread()

    def _fork(self) -> int:
        gc.collect()
        gc.freeze()  # so that collections in the runs do not write to memory that all share
        return os.fork()

    def _in_the_run(self, order: Order) -> Order:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (*self.woken, self.life[1]):
            os.close(end)
        os.dup(self.connection.fileno())  # as long as a process has it open, the command knows that a run may be alive
        threading.Thread(target=_stop_after, args=(self.life[0],), daemon=True, name="server").start()
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        import numpy as np

        np.random.seed()  # as in a new process; Python's own generator does this by itself
        return order


@contextmanager
def ending() -> Iterator[None]:
    """End the process after this context as Python does, but without taking all modules and objects apart.

    That would write to the memory that all runs share, which takes longer than a short run.
    """
    code: object = 0
    try:
        yield
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


def _stop_after(end: int) -> None:
    """Wait until the server has ended, and then ask this process to save and stop."""
    with suppress(OSError):
        os.read(end, 1)
        os.kill(os.getpid(), signal.SIGTERM)


def rehearse(plain: Mapping[str, Any]) -> None:
    """Do what runs with the resolved configuration ``plain`` do before they build anything, and discard the results."""
    import torch

    from altprop.config.checks.validation import problems_of_plain

    if plain["trainer"]["figures"]:
        from altprop.training import artifacts

        artifacts.rehearse()
    with torch.random.fork_rng(devices=()):  # not training.isolation, because setting the number of threads starts threads
        if not problems_of_plain(plain):
            instantiate(plain["dataset"], _convert_="all").prefetch()


def _require_one_thread() -> None:
    if (count := threads_at_fork()) != 1:
        sys.exit(f"{count} threads are running before the first run")


def threads_at_fork() -> int:
    """How many threads this process has after a fork. NumPy's OpenBLAS, for example, ends its own before a fork."""
    if (process := os.fork()) == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return len(os.listdir("/proc/self/task"))


def only_ours(config: DictConfig) -> bool:
    """Whether ``config`` names nothing but classes and functions of altprop and torch."""
    plain, _ = to_plain(config)
    return all(target.startswith(OURS) for target in targets_in(plain))


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)


@contextmanager
def _fork_safe() -> Iterator[None]:
    """Inside, torch does not initialize CUDA to count GPUs, and no garbage is collected."""
    before = os.environ.get(FORK_SAFE)
    os.environ[FORK_SAFE] = "1"
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if before is None:
            del os.environ[FORK_SAFE]
        else:
            os.environ[FORK_SAFE] = before


def usable() -> bool:
    """Whether runs can be forked on this system. On others, threads of the system's libraries make it unsafe."""
    return sys.platform == "linux" and Path("/proc/self/task").is_dir()
