"""Jobs of several tasks, and which GPU a task gets."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.slurm.jobs import (
    ENDLESS,
    PAUSING,
    SMALL,
    cancel,
    command,
    preempt,
    state,
    submit,
    wait_for_end,
    wait_for_step,
    weights,
)

SHARED = [*SMALL, "trainer.sync_batch_norm=true", "optimizer=sgd", "optimizer.lr=0.01"]
TWO = ["resources.processes=2", "resources.memory=2"]


def test_two_tasks_give_the_update_of_one(tmp_path: Path) -> None:
    [run] = submit(tmp_path / "two", *SHARED, *TWO, "trainer.duration=1ep", table=False).runs
    wait_for_end(run)
    done = command(tmp_path / "one", "train.py", *SHARED, "trainer.duration=1ep")
    assert done.returncode == 0, done.stderr
    [alone] = (tmp_path / "one" / "scratch").iterdir()
    left, right = weights(run.directory), weights(alone)
    for name, value in left.items():
        assert torch.allclose(value.double(), right[name].double(), rtol=1e-5, atol=1e-5), name


def test_two_tasks_are_preempted_together(tmp_path: Path) -> None:
    long = ["trainer.duration=8ep", "trainer.evaluate_every=1ep", "trainer.checkpoint_every=null"]
    [run] = submit(tmp_path, *SHARED, *TWO, *long, *PAUSING, table=False).runs
    preempt(run)


def test_each_run_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    sweep = submit(tmp_path, "resources=gpu", *ENDLESS[1:], "trainer.device=cpu", "seed=0,1", table=False)
    for run in sweep.runs:
        wait_for_step(run)
    assert [state(run) for run in sweep.runs] == ["RUNNING", "RUNNING"]
    assert {run.status["job"]["cuda_visible_devices"] for run in sweep.runs} == {"0", "1"}
    cancel(sweep)
    wait_for_end(*sweep.runs)
