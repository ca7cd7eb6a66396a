"""Warm workers: how a sweep's command starts and uses fork servers, one for each distinct environment of its slots."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.config.compose import JobComposer
from altprop.program import FORK_SERVER, arguments
from altprop.sweeping.fork_server import Order, Report, only_ours
from altprop.sweeping.jobs import SweepRun

LOST = -1000
"""In place of an exit code: the server ended before the run did, so the run has to be started again."""


class Server:
    """A fork server with ``environment``, as :mod:`subprocess` starts it, and the runs that were forked from it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, log.open("wb") as output:
            command = [*arguments("train"), FORK_SERVER, str(theirs.fileno())]
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": output}
            self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], **streams)  # type: ignore[call-overload]
            self.connection = Connection(os.dup(ours.fileno()))
        self.log = log
        self.ready = False
        self.open = True
        self.count = 0
        self.pids: dict[int, int] = {}
        """Number of a run -> its process."""
        self.codes: dict[int, int] = {}

    @property
    def alive(self) -> bool:
        """Whether it takes orders."""
        return self.open and self.process.poll() is None

    def start(self, run: SweepRun, config: Mapping[str, Any] | None) -> WarmProcess | None:
        """The process of ``run``; None if the server has ended."""
        assert run.log is not None
        self.count += 1
        try:
            self.connection.send(Order(self.count, run.arguments, run.log, config))
        except OSError:
            return None
        return WarmProcess(self, self.count)

    def receive(self) -> None:
        """Read the server's reports."""
        try:
            while self.open and self.connection.poll():
                report: Report = self.connection.recv()
                if report.kind == "ready":
                    self.ready = True
                elif report.kind == "started":
                    self.pids[report.number] = report.process
                else:
                    self.codes[report.number] = report.code
        except (EOFError, OSError):  # the server and every process of it have ended
            self.open = False

    def stop(self) -> None:
        """Let its runs save and stop, and wait until they and the server have ended."""
        self.receive()
        if not self.ready:  # it is importing and has no runs
            self.process.kill()
        if self.open:
            with suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR)
        for number in self.pids.keys() - self.codes.keys():  # if the server is gone, it cannot tell them
            self.send_signal(number, signal.SIGTERM)
        while self.open:
            self.connection.poll(None)
            self.receive()
        self.process.wait()
        self.connection.close()

    def send_signal(self, number: int, value: int) -> None:
        """Send a signal to the process of run ``number``, if it was started and has not ended."""
        if self.open and number in self.pids and number not in self.codes:
            with suppress(ProcessLookupError):
                os.kill(self.pids[number], value)


class WarmProcess:
    """A run that was forked from ``server``, with the methods of ``subprocess.Popen`` that a launcher needs."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.number = number

    def poll(self) -> int | None:
        """The exit code of the run as in :mod:`subprocess`; None while it runs, :data:`LOST` if it is unknown."""
        self.server.receive()
        if self.number in self.server.codes:
            return self.server.codes[self.number]
        return None if self.server.open else LOST

    def send_signal(self, value: int) -> None:
        """Send a signal to the run."""
        self.server.send_signal(self.number, value)


class Servers:
    """The fork servers of one command, which are started when they are needed."""

    def __init__(self) -> None:
        self.servers: dict[tuple[tuple[str, str], ...], Server | None] = {}
        """Environment of a slot -> its server, or None if it has ended too early and runs need processes of their own."""

    def start(self, run: SweepRun, slot: Mapping[str, str], composer: JobComposer | None, folder: Path) -> WarmProcess | None:
        """Start ``run`` in ``slot`` of the sweep in ``folder``. None if the server has ended."""
        key = tuple(sorted(slot.items()))
        if key not in self.servers:
            number = len(self.servers)
            self.servers[key] = Server({**os.environ, **slot}, folder / f".server-{number}.log")
        server = self.servers[key]
        process = server.start(run, _composed(run, composer)) if server is not None and server.alive else None
        if process is None and server is not None:
            self._give_up(key, server)
        return process

    def connections(self) -> list[Connection]:
        """What to wait for: the servers say when a run has ended."""
        return [server.connection for server in self.servers.values() if server is not None and server.open]

    def close(self) -> None:
        """End all servers, after their runs have saved and stopped."""
        servers = [server for server in self.servers.values() if server is not None]
        self.servers.clear()
        for server in servers:
            server.stop()
            server.log.unlink(missing_ok=True)

    def _give_up(self, key: tuple[tuple[str, str], ...], server: Server) -> None:
        self.servers[key] = None
        lines = server.log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {server.process.poll()}"
        consequence = "from now on, each run starts as a new Python process"
        print(f"the process that runs are forked from has ended ({reason}); {consequence}", file=sys.stderr)
        server.stop()


def _composed(run: SweepRun, composer: JobComposer | None) -> dict[str, Any] | None:
    """The configuration of ``run``; None if it names other classes than altprop's and torch's, or changes settings of Hydra."""
    overrides = [text for text in run.arguments if text != "hydra.mode=RUN"]
    if composer is None or any(text.startswith(("--", "hydra.", "+hydra.", "++hydra.", "~hydra.")) for text in overrides):
        return None
    try:
        config, hydra = composer.compose_with_hydra(overrides)
    except (HydraException, OmegaConfBaseException):  # the run itself reports what is wrong
        return None
    if config.run is not None or not _is_usual(hydra) or not only_ours(config):
        return None
    return OmegaConf.to_container(config)  # type: ignore[return-value]


def _is_usual(hydra: DictConfig) -> bool:
    """Whether Hydra's own settings have no effect on a run."""
    job = hydra.job
    return not (job.env_set or job.chdir or hydra.output_subdir or hydra.verbose or hydra.job_logging.root) and (
        hydra.run.dir == "." and set(hydra.callbacks) == {"sweep_notes"}
    )


def needed(left: Sequence[SweepRun], slots: Sequence[object]) -> bool:
    """Whether warm workers save time. They do not if all runs start at the same moment."""
    return len(left) > len(slots)
