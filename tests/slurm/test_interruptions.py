"""Everything that a cluster does to jobs, on a real SLURM: no step is lost or repeated, and the status says what happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from altprop.sweeping.jobs import SweepRun
from altprop.sweeping.outcome import outcome, settle
from altprop.sweeping.queue import ask
from tests.slurm.jobs import (
    ENDLESS,
    LONG,
    PAUSING,
    SMALL,
    assert_same_weights,
    log_of,
    preempt,
    state,
    submit,
    wait_for,
    wait_for_end,
    wait_for_step,
)
from tests.tracking.test_wandb import of_kind, records_in


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """The long run, left alone."""
    [run] = submit(tmp_path_factory.mktemp("undisturbed"), *LONG, table=False).runs
    wait_for_end(run)
    return run


def records(run: SweepRun) -> list[int]:
    assert run.directory is not None
    return [json.loads(line)["step"] for line in (Path(run.directory) / "metrics.jsonl").read_text().splitlines()]


def test_preemption_in_mid_epoch(undisturbed: SweepRun, tmp_path: Path) -> None:
    wandb = ["logger=wandb", "logger.wandb.mode=offline", "logger.wandb.finish_timeout=120"]  # it starts slowly on a busy machine
    [run] = submit(tmp_path, *LONG, *wandb, *PAUSING, table=False).runs
    preempt(run)
    assert run.status["job"]["slurm_restart_count"] == "1"
    assert records(run) == records(undisturbed)
    assert_same_weights(run, undisturbed)
    sessions = [records_in(file) for file in sorted(Path(run.directory or "").glob("wandb/offline-run-*/*.wandb"))]
    assert [of_kind(session, "run")[0].run_id for session in sessions] == [Path(run.directory or "").name] * 2
    assert [len(of_kind(session, "preempting")) for session in sessions] == [1, 0]
    assert [of_kind(session, "exit")[0].exit_code for session in sessions] == [1, 0]


def test_killed_task_resumes_when_submitted_again(undisturbed: SweepRun, tmp_path: Path) -> None:
    long = [*LONG, *PAUSING, "trainer.checkpoint_every=1ep"]
    [run] = submit(tmp_path, *long, table=False).runs
    wait_for_step(run)
    wait_for("a checkpoint", (Path(run.directory or "") / "checkpoints" / "last.pt").exists)
    os.kill(run.status["pid"], signal.SIGKILL)  # scancel would give it time to save
    wait_for_end(run)
    queue = ask([run.job])
    found = outcome(run, queue)
    assert (found.state, found.reason.partition(";")[0]) == ("failed", "killed from outside")
    settle([run], queue)  # as the table job does
    assert (run.status["status"], run.status["error"]) == (found.state, found.reason)
    [again] = submit(tmp_path, *long, table=False).runs
    assert again.directory == run.directory
    assert again.job not in (None, run.job)
    wait_for_end(again)
    assert "resuming from step" in log_of(again)
    assert_same_weights(again, undisturbed)


def test_canceled(tmp_path: Path) -> None:
    [run] = submit(tmp_path, *ENDLESS, table=False).runs
    wait_for_step(run)
    subprocess.run(["scancel", run.job or ""], check=True)
    wait_for_end(run)
    assert state(run) == "CANCELLED"
    assert outcome(run, ask([run.job])).state == "interrupted"
    assert run.status["status"] == "interrupted"


def test_a_run_over_its_memory_leaves_the_others_alone(tmp_path: Path) -> None:
    sweep = submit(tmp_path, *SMALL, "trainer.duration=1ep", "model.hidden=[16],[20000,20000]", "seed=0", table=False)
    wait_for_end(*sweep.runs)
    fine, killed = sweep.runs
    assert fine.status["status"] == "done"
    found = outcome(killed, ask([killed.job]))
    assert found.state == "failed"
    assert "out of memory: SLURM killed the run" in found.reason
    assert "resources.memory=" in found.reason
