"""Warm workers: runs that are forked from a process with torch imported are like runs in processes of their own."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.config.compose import JobComposer, config_loader
from altprop.config.project import ROOT
from altprop.sweeping import fork_server, warm
from altprop.sweeping.jobs import SweepRun, manifests
from altprop.sweeping.outcome import outcome
from altprop.sweeping.queue import Queue

SHORT = ["trainer.duration=1ep", "trainer.limit_batches=2", "trainer.figures=false", "model.hidden=[8]", "trainer.device=cpu"]
ENDLESS = [*SHORT[1:], "trainer.duration=1000000ep", "trainer.evaluate_every=100ep", "trainer.checkpoint_every=null"]

pytestmark = pytest.mark.skipif(not fork_server.usable(), reason="runs are forked on Linux only")


def start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a sweep, which can also import the modules beside its folder ``outputs``."""
    path = os.pathsep.join((str(ROOT / "src"), str(outputs.parent)))
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    line = [sys.executable, str(ROOT / "train.py"), "-m", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, env=environment, text=True, start_new_session=True, **streams)  # type: ignore[call-overload, no-any-return]


def sweep(outputs: Path, *arguments: str) -> list[SweepRun]:
    process = start(outputs, *arguments)
    told = process.communicate(timeout=280)
    assert process.returncode == 0, told
    return next(manifests(outputs)).runs


def weights(run: SweepRun) -> dict[str, torch.Tensor]:
    return torch.load(Path(str(run.directory)) / "checkpoints/last.pt", weights_only=True)["algorithm"]["model"]


def assert_same_weights(one: SweepRun, other: SweepRun) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited too long")


def session(leader: int) -> list[int]:
    """The processes in the session of ``leader``: the command, its servers and its runs."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(number) == leader and state != "Z":
            processes.append(int(path.parent.name))
    return processes


def plain(text: str) -> str:
    """A log without times, speeds and the folder of the outputs."""
    return re.sub(r"\S*/(forked|separate)/|[\d,]+(?=, time)|[-\d]+ \d+:\d\d:\d\d|\d+:\d\d:\d\d", "·", text)


def test_a_warm_run_is_like_a_run_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The second of two runs that are forked from the same process is compared."""
    logs = {"forked": {"0.log", "1.log"}, "separate": {"0.log"}}
    settings = {"forked": ["seed=0,1", "cluster.warm=true"], "separate": ["seed=1", "cluster.warm=false"]}
    runs = []
    for word, overrides in settings.items():
        runs.append(sweep(tmp_path / word, *SHORT, *overrides, "cluster.workers=1")[-1])
        folder = next(manifests(tmp_path / word)).folder
        assert {path.name for path in folder.iterdir()} == {*logs[word], "runs.json", "multirun.yaml"}
    assert_same_weights(*runs)
    assert plain(runs[0].printed) == plain(runs[1].printed)
    files = [{path.relative_to(run.directory or "") for path in Path(str(run.directory)).rglob("*")} for run in runs]
    assert files[0] == files[1]
    texts = [(Path(str(run.directory)) / "config.yaml").read_text() for run in runs]
    assert re.sub(r"warm: \w+", "", texts[0]) == re.sub(r"warm: \w+", "", texts[1].replace("/separate", "/forked"))
    metas = [json.loads((Path(str(run.directory)) / "meta.json").read_text()) for run in runs]
    assert metas[0]["threads"] == metas[1]["threads"]
    assert [re.sub("warm=true|/forked", "", word) for word in metas[0]["command"]] == [
        re.sub("warm=false|/separate", "", word) for word in metas[1]["command"]
    ]


def test_kills_hurt_nobody_else_and_leave_nobody_behind(tmp_path: Path) -> None:
    """The same sweep three times, each resuming the one before: a run is killed, then the server, then the command."""
    before: set[int] = set()

    def runs() -> list[SweepRun]:
        return next((sweep.runs for sweep in manifests(tmp_path)), [])

    def training() -> list[SweepRun] | None:
        found = [run for run in runs() if run.status.get("status") == "running" and run.status["pid"] not in before]
        return found if len(found) == 2 and all(run.status["step"] for run in found) else None

    def begin() -> tuple[subprocess.Popen[str], list[SweepRun]]:
        before.update(run.status["pid"] for run in runs() if run.status)
        command = start(tmp_path, *ENDLESS, "seed=0,1,2", "cluster.workers=2")
        return command, wait_for(training)

    command, (first, second) = begin()
    os.kill(first.status["pid"], signal.SIGKILL)
    wait_for(lambda: (found := training()) and first.seed not in {run.seed for run in found})
    os.killpg(command.pid, signal.SIGTERM)  # as a cluster does
    told = command.communicate(timeout=60)
    assert command.returncode == 143, told
    assert [run.status["status"] for run in runs()] == ["failed", "interrupted", "interrupted"]
    assert outcome(first, Queue()).reason.startswith("killed, most likely by the system")
    assert "everything is saved" in second.printed
    assert not session(command.pid)

    command, both = begin()
    forked = [run.status["pid"] for run in both]
    [server] = {int(Path(f"/proc/{process}/stat").read_text().split()[3]) for process in forked}
    os.kill(server, signal.SIGKILL)
    before.update(forked)
    wait_for(training)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    told = command.communicate(timeout=60)
    assert command.returncode == 130, told
    assert "the process that runs are forked from has ended" in told[1]
    assert all("resuming from step" in run.printed for run in both)
    assert not session(command.pid)

    command, both = begin()
    os.kill(command.pid, signal.SIGKILL)
    command.communicate(timeout=60)
    wait_for(lambda: not session(command.pid))
    assert [run.status["status"] for run in both] == ["interrupted", "interrupted"]


def test_ctrl_c_saves_every_run(tmp_path: Path) -> None:
    command = start(tmp_path, *ENDLESS, "seed=0,1", "cluster.workers=1")
    run = wait_for(lambda: next((run for each in manifests(tmp_path) for run in each.runs if run.status.get("step")), None))
    os.killpg(command.pid, signal.SIGINT)
    command.communicate(timeout=60)
    assert command.returncode == 130
    assert run.status["status"] == "interrupted"
    assert "everything is saved" in run.printed
    assert not session(command.pid)


OUT_OF_MEMORY = """
import os
from altprop.models.mlp import MLP

class Net(MLP):
    calls = 0

    def __init__(self, *, end, **arguments):
        super().__init__(**arguments)
        self.end = end

    def forward(self, inputs):
        self.calls += 1
        if self.calls > 9 and self.end == "killed":
            os.kill(os.getpid(), 9)  # as the system does if memory runs out
        if self.calls > 9 and self.end == "error":
            raise MemoryError
        return super().forward(inputs)
"""


def test_out_of_memory_hurts_no_other_run_and_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OUT_OF_MEMORY)
    ends = ["model._target_=mine.Net", "+model.end=killed,error,fine", "cluster.workers=1"]
    command = start(tmp_path / "outputs", *SHORT[1:], "trainer.duration=6ep", *ends)
    out, err = command.communicate(timeout=280)
    assert command.returncode == 1, err
    [sweep] = manifests(tmp_path / "outputs")
    assert [run.status["status"] for run in sweep.runs] == ["failed", "failed", "done"]
    assert [line.rpartition(": ")[2] for line in out.splitlines() if line[1:3] == "/3"] == ["failed", "failed", "done"]
    reasons = ("killed, most likely by the system because it was out of memory; ", "RunFailed: out of host memory; lower ")
    lines = [line for line in err.splitlines() if " failed: " in line]
    for line, run, reason in zip(lines, sweep.runs[:2], reasons, strict=True):
        assert f" failed: {reason}" in line
        assert outcome(run, Queue()).reason.startswith(reason)


def test_own_modules_are_imported_by_each_run(tmp_path: Path) -> None:
    """So a run has the code as it is then, also with the command ``altprop`` in a folder of one's own."""
    changed = "def task(parts):\n    print('second', parts.seed)\n"
    (tmp_path / "mine.py").write_text(
        f"def task(parts):\n    print('first', parts.seed)\n    open('mine.py', 'w').write({changed!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    overrides = ["task._target_=mine.task", "seed=0,1", "cluster.workers=1", f"paths.outputs={tmp_path}/outputs"]
    line = [sys.executable, "-m", "altprop", "train", "-m", *overrides]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert [run.printed for run in next(manifests(tmp_path / "outputs")).runs] == ["first 0\n", "second 1\n"]


def test_runs_that_share_a_gpu_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is pretended: torch finds none and trains on the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    runs = sweep(tmp_path, *SHORT[:-1], "trainer.device=auto", "seed=range(3)", "cluster.per_gpu=2")
    assert [run.status["job"]["cuda_visible_devices"] for run in runs] == ["3"] * 3
    assert {run.status["status"] for run in runs} == {"done"}


def test_each_gpu_has_a_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    class Server:
        alive = True

        def __init__(self, environment: Mapping[str, str], log: Path) -> None:
            self.gpu = environment["CUDA_VISIBLE_DEVICES"]
            started.append(self.gpu)

        def start(self, run: SweepRun, config: object) -> str:
            return self.gpu

    monkeypatch.setattr(warm, "Server", Server)
    servers, run = warm.Servers(), SweepRun([], [], None, 0)
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "3", "0", "3")]
    assert [servers.start(run, slot, None, tmp_path) for slot in slots] == ["0", "3", "0", "3"]
    assert started == ["0", "3"]


@pytest.fixture(scope="module")
def jobs() -> Iterator[JobComposer]:
    with config_loader() as composer:
        yield JobComposer(composer.loader, composer.compose("train", [], multirun=True))


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["seed=1", "hydra.mode=RUN"], True),
        (["seed=1", "hydra.verbose=true", "hydra.mode=RUN"], False),
        (["run=outputs/x", "hydra.mode=RUN"], False),
        (["dataset._target_=mine.Digits", "hydra.mode=RUN"], False),
    ],
)
def test_only_configurations_of_altprop_are_composed_in_advance(overrides: list[str], known: bool, jobs: JobComposer) -> None:
    assert (warm._composed(SweepRun([], overrides, None, 0), jobs) is not None) is known


def test_a_run_for_which_there_is_no_process_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(server: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ours, theirs = socket.socketpair()
    server = object.__new__(fork_server._Server)
    server.connection, server.woken, server.runs = Connection(theirs.detach()), os.pipe(), {}
    os.set_blocking(server.woken[0], False)
    monkeypatch.setattr(fork_server._Server, "_fork", fork)
    with Connection(os.dup(ours.fileno())) as connection, ours, server.connection:
        for number in (1, 2):
            connection.send(fork_server.Order(number, [], str(tmp_path / f"{number}.log")))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(SystemExit):
            server.run()
        assert [connection.recv() for _ in (1, 2)] == [fork_server.Report("ended", number, code=1) for number in (1, 2)]
    for end in server.woken:
        os.close(end)
    assert (tmp_path / "2.log").read_text().startswith("the run could not be started: Resource temporarily unavailable; let")


def test_a_server_that_cannot_start_is_replaced_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "arguments", lambda name: [sys.executable, "-c", "raise SystemExit('no torch')"])
    servers, run = warm.Servers(), SweepRun([], [], None, 0, log=str(tmp_path / "0.log"))
    process = servers.start(run, {}, None, tmp_path)
    if process is not None:
        assert wait_for(lambda: process.poll()) == warm.LOST
    assert servers.start(run, {}, None, tmp_path) is None
    assert servers.start(run, {}, None, tmp_path) is None
    servers.close()
