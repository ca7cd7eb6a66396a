"""A run that is killed before each of its file-system calls loses nothing, and never shows anything wrong.

The promises, checked at each point:

- The run counts as done only if its checkpoints are complete.
- The checkpoints that are there belong together: the best one is that of the newest checkpoint's own record.
- Repeating the command leaves exactly the files, weights and records of a run that was not killed.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from altprop.checkpoint_files import BEST, find_checkpoint
from altprop.nn.weights.saved_run import checkpoint_file
from altprop.training.checkpoint import CheckpointStore, read_checkpoint
from altprop.training.run import train
from altprop.training.rundir import RunDirectory
from tests.algorithms.harness import STEPS_PER_EPOCH, assert_equal
from tests.faults.killing import SETTINGS, train_until
from tests.training.fixtures import make_parts
from tests.training.test_run import records

TIMES = ("seconds", "train_seconds", "best", "last")
CHECKPOINTS = ("initial.pt", "last.pt", "last-1.pt", "best.pt", "epoch-1.pt", "epoch-2.pt")


def run_until(outputs: Path, at: int | None, report: Path | None = None, *, resume: bool = True) -> int | None:
    """Train in a new process, killed before call ``at``. Returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.killing"])
    process = context.Process(target=train_until, args=(outputs, at, report, resume))
    process.start()
    process.join()
    return process.exitcode


def contents(outputs: Path) -> dict[str, Any]:
    """Every file of the run by name; the state of checkpoints without times."""
    directory = make_parts(outputs).directory
    found: dict[str, Any] = dict.fromkeys(path.name for path in directory.rglob("*") if path.is_file())
    for name in CHECKPOINTS:
        state = read_checkpoint(directory / "checkpoints" / name)
        state["progress"] = {key: value for key, value in state["progress"].items() if key not in TIMES}
        found[name] = state
    found["metrics.jsonl"] = records(directory)
    found["outputs"] = sorted(path.name for path in outputs.iterdir())
    found["folder"] = sorted(path.name for path in directory.iterdir())
    return found


def broken_promises(outputs: Path) -> list[str]:
    """What is wrong with the files of a run that was killed, before it is started again."""
    parts = make_parts(outputs)
    store = CheckpointStore(parts.directory / "checkpoints", parts.key)
    newest, complaints = store.newest()
    problems = list(complaints)
    step = 0 if newest is None else newest.state["step"]
    if RunDirectory(parts.directory, parts.name, parts.key).finished and step != 3 * STEPS_PER_EPOCH:
        problems.append(f"done at step {step}")
    if newest is not None and (best := newest.state["progress"]["best"]):
        path = find_checkpoint(store.folder, BEST)
        shown = None if path is None else read_checkpoint(path)["step"]
        if shown != best["step"]:
            problems.append(f"the best checkpoint is of step {shown}, not {best['step']}")
        if checkpoint_file(str(parts.directory), "model.weights_from") != path:
            problems.append("another run would start from other weights than the best ones")
    return problems


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("started", ["new", "cleared"])
def test_killed_before_every_file_system_call_nothing_is_lost(started: str, tmp_path: Path) -> None:
    straight, report = tmp_path / "straight", tmp_path / "calls"
    assert run_until(straight, None, report) == 0
    if started == "cleared":
        shutil.copytree(straight, tmp_path / "again", symlinks=True)
        assert run_until(tmp_path / "again", None, report, resume=False) == 0
    calls = report.read_text().splitlines()
    if started == "cleared":  # from here on it is a new run
        calls = calls[: next(number for number, call in enumerate(calls) if "config.yaml.tmp" in call or "initial.pt" in call)]
    assert len(calls) > (90 if started == "new" else 10)
    expected = contents(straight)
    failures = []
    for number, call in enumerate(calls):
        outputs = tmp_path / str(number)
        if started == "cleared":
            shutil.copytree(straight, outputs, symlinks=True)
        assert run_until(outputs, number, resume=started == "new") == -signal.SIGKILL
        failures += [f"{number} before {call}: {problem}" for problem in broken_promises(outputs)]
        train(make_parts(outputs, **SETTINGS))
        try:
            assert_equal(expected, contents(outputs))
        except AssertionError as error:
            failures.append(f"{number} before {call}: {error}")
        shutil.rmtree(outputs)
    assert failures == []
