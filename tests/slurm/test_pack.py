"""Several runs in one job, which share its GPU."""

from __future__ import annotations

import json
from pathlib import Path

from altprop.sweeping.outcome import outcome
from altprop.sweeping.queue import ask
from tests.slurm.jobs import (
    DIVERGING,
    LONG,
    PAUSING,
    command,
    interrupt,
    let_go,
    state,
    submit,
    wait_for,
    wait_for_end,
    wait_for_step,
)

PACKED = ["resources=gpu", "resources.cores=1", "resources.memory=1", "trainer.device=cpu", "cluster.per_gpu=2"]


def test_runs_of_one_job_share_its_gpu_and_fate(tmp_path: Path) -> None:
    """One run fails, the job is preempted and requeued, and the other run resumes; the table follows."""
    sweep = submit(tmp_path, *LONG[1:], *PACKED, *PAUSING, *DIVERGING, "seed=0", "optimizer.lr=0.001,1000,0.002")
    fine, broken, other = sweep.runs
    assert (fine.job, broken.job, other.job) == (f"{sweep.job}_0", f"{sweep.job}_0", f"{sweep.job}_1")
    let_go(other)
    wait_for("the failure", lambda: broken.status.get("status") == "failed")
    wait_for_step(fine)
    assert fine.status["job"]["cuda_visible_devices"] == broken.status["job"]["cuda_visible_devices"] in ("0", "1")
    refused = command(tmp_path, "status.py", "action=cancel", "run=0")
    assert refused.returncode == 2
    assert "the runs 0, 1 share a job and can only be canceled together" in refused.stderr
    assert [outcome(run, ask([run.job])).state for run in (fine, broken)] == ["running", "failed"]
    interrupt(fine)
    wait_for_end(*sweep.runs)
    assert [run.status["status"] for run in sweep.runs] == ["done", "failed", "done"]
    assert state(fine) == "FAILED"  # because one of its runs has
    assert "resuming from step" in fine.printed
    assert broken.printed.count("the loss became") == 1  # it was not repeated
    steps = [json.loads(line)["step"] for line in (Path(str(fine.directory)) / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    wait_for("the table", (sweep.folder / "status.txt").exists)
    assert "2 done, 1 failed" in (sweep.folder / "status.txt").read_text()
