"""Real processes that die: killed at random moments, on a full disk, two on one directory."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.problems import RunFailed
from altprop.training.checkpoint import CheckpointStore
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from tests.algorithms.harness import assert_equal
from tests.training.fixtures import make_parts
from tests.training.test_run import final_state, records

KILLS = 20
SETTINGS = {"duration": "12ep", "checkpoint_every": "4st", "keep": 2}


class Slow(Backprop):
    """A step that takes long enough to be hit by a signal now and then."""

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        time.sleep(0.003)
        return super().update(inputs, targets)


def _train(outputs: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    train(make_parts(outputs, algorithm=Slow(), **settings))


def start(outputs: Path, **settings: Any) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_hard_ends"])
    process = context.Process(target=_train, args=(outputs, {**SETTINGS, **settings}))
    process.start()
    return process


def wait_until_running(outputs: Path, process: BaseProcess) -> None:
    directory = RunDirectory(make_parts(outputs).directory, "tiny", "")
    while process.is_alive() and (directory.read_status() or {}).get("pid") != process.pid:
        time.sleep(0.005)


def test_killed_at_random_moments_the_finished_run_is_the_same(tmp_path: Path) -> None:
    straight = make_parts(tmp_path / "straight", **SETTINGS)
    train(straight)
    chance = random.Random(0)
    kills, runs = 0, 0
    while kills < KILLS:
        outputs = tmp_path / f"killed{runs}"
        runs += 1
        while True:
            process = start(outputs)
            if chance.random() < 0.7:  # in training; else anywhere, most likely while starting
                wait_until_running(outputs, process)
            process.join(chance.uniform(0.0, 0.25))
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:  # it was done before the signal came
                break
            kills += 1
        assert process.exitcode == 0
        killed = make_parts(outputs, **SETTINGS)
        assert_equal(final_state(straight.directory), final_state(killed.directory))
        assert records(straight.directory) == records(killed.directory)


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    directory = RunDirectory(make_parts(tmp_path).directory, "tiny", "")
    process = start(tmp_path, duration="10000ep")  # longer than a trainer waits for the lock
    wait_until_running(tmp_path, process)
    with pytest.raises(RunFailed, match=f"another process \\({process.pid}\\)"), directory.lock():
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with directory.lock():
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs needs root: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    straight = make_parts(tmp_path / "straight", checkpoint_every="1st")
    train(straight)
    parts = make_parts(small_disk, checkpoint_every="1st", algorithm=Filling(small_disk / "filler"))
    with pytest.raises(RunFailed, match=r"No space left.*repeat the command"):
        train(parts)
    found, complaints = CheckpointStore(parts.directory / "checkpoints", parts.key).newest()
    assert found is not None
    assert complaints == []
    assert found.state["step"] >= 8
    (small_disk / "filler").unlink()
    train(make_parts(small_disk, checkpoint_every="1st"))
    assert_equal(final_state(straight.directory), final_state(parts.directory))
    assert records(straight.directory) == records(parts.directory)


class Filling(Backprop):
    """Fills the disk at the tenth step."""

    def __init__(self, filler: Path) -> None:
        super().__init__()
        self.filler = filler

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.step == 9:
            with self.filler.open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(256))
                except OSError:
                    pass
        return super().update(inputs, targets)
