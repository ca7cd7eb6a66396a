"""A sweep from beginning to end on a real SLURM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from altprop.files import read_json
from altprop.sweeping.jobs import Manifest, manifests
from tests.slurm.jobs import DIVERGING, QUEUED, SMALL, assert_same_weights, cancel, command, state, submit, wait_for, wait_for_end

GRID = [*SMALL, "trainer.duration=2ep", "seed=0,1"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def sweep(outputs: Path) -> Manifest:
    manifest = submit(outputs, *GRID)
    wait_for_end(*manifest.runs)
    return manifest


def test_runs_equal_local_runs(sweep: Manifest, tmp_path: Path) -> None:
    assert [run.status["status"] for run in sweep.runs] == ["done"] * 2
    assert len({run.directory for run in sweep.runs}) == 2
    local = command(tmp_path, "train.py", "-m", *SMALL, "trainer.duration=2ep", "seed=1")
    assert local.returncode == 0, local.stderr
    [alone] = next(manifests(tmp_path)).runs
    assert_same_weights(sweep.runs[1], alone)


def test_the_job_after_the_last_run_writes_the_table(sweep: Manifest) -> None:
    table = sweep.folder / "status.txt"
    wait_for("the table", table.exists)
    assert table.read_text().count("done") == 3  # two runs and the count


def test_a_finished_sweep_submits_nothing(sweep: Manifest, outputs: Path) -> None:
    told = command(outputs, "train.py", "-m", *QUEUED, *GRID)
    assert "2 done already; nothing to submit" in told.stdout
    again = next(manifests(outputs))
    assert again.job is None
    assert [run.job for run in again.runs] == [None] * 2


def test_what_is_left_is_submitted(sweep: Manifest, outputs: Path) -> None:
    hold = "+cluster.sbatch.hold=true"  # so that the job is still there when the command is repeated
    more = submit(outputs, *SMALL, "trainer.duration=2ep", "seed=0,3", "cluster.at_once=1", hold, table=False)
    assert [run.job is None for run in more.runs] == [True, False]
    assert state(more.runs[1]) == "PENDING"
    told = command(outputs, "train.py", "-m", *QUEUED, *SMALL, "trainer.duration=2ep", "seed=3")
    assert "1 in the queue already; nothing to submit" in told.stdout
    cancel(more)


def test_staying_until_the_last_job_has_ended(tmp_path: Path) -> None:
    overrides = [*QUEUED, "cluster.wait=true", *SMALL, *DIVERGING, "trainer.duration=1ep", "optimizer.lr=0.01,1000"]
    done = command(tmp_path, "train.py", "-m", *overrides)
    runs = next(manifests(tmp_path)).runs
    assert [run.status["status"] for run in runs] == ["done", "failed"]
    assert [state(run) for run in runs] == ["COMPLETED", "FAILED"]
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "failed: RunFailed" in line]
    assert "optimizer.lr=1000" in line
    assert "the loss became" in line


def test_a_run_that_waits_for_a_papers_sweep(tmp_path: Path) -> None:
    """The two commands of docs/algorithms/iterative_binarization.md."""
    small = [*SMALL[:-1], "trainer.duration=1ep"]
    layers = submit(tmp_path, "sweep=iterative/quick_sensitivity", *small, table=False)
    guided = submit(tmp_path, "experiment=iterative/quick_guided", *small, f"+cluster.sbatch.dependency=afterok:{layers.job}")
    [run] = guided.runs
    assert run.directory is not None
    table = subprocess.run(["squeue", "--noheader", "--format=%E", f"--jobs={guided.table}"], capture_output=True, text=True)
    assert table.stdout.startswith(f"afterany:{guided.job}(")
    wait_for_end(*layers.runs, run)
    assert [one.status["status"] for one in (*layers.runs, run)] == ["done"] * 4
    assert sorted(read_json(tmp_path / "iterative/quick_sens/order.json")["order"]) == [1, 2, 3]
    again = command(tmp_path, "train.py", "-m", "experiment=iterative/quick_guided", *small, *QUEUED)
    assert "1 done already; nothing to submit" in again.stdout


def test_pruning_waits_for_the_dense_run_it_starts_from(tmp_path: Path) -> None:
    """The two commands of docs/algorithms/dynamic_sparse.md; the second is given before the run that it starts from exists."""
    small = SMALL[:-1]
    dense = submit(tmp_path, "experiment=dsr/quick_dense", *small, "+cluster.sbatch.hold=true", table=False)
    pruned = submit(
        tmp_path,
        "experiment=dsr/quick_prune",
        "algorithm.weights.sparsity=0.9",
        *small,
        f"+cluster.sbatch.dependency=afterok:{dense.job}",
        table=False,
    )
    assert [run.directory for run in dense.runs if Path(run.directory or "").exists()] == []
    assert [state(run) for run in pruned.runs] == ["PENDING"]
    subprocess.run(["scontrol", "release", dense.job or ""], check=True)
    wait_for_end(*dense.runs, *pruned.runs)
    assert [run.status["status"] for run in (*dense.runs, *pruned.runs)] == ["done"] * 2
    for run in pruned.runs:
        config = OmegaConf.load(Path(run.directory or "") / "config.yaml")
        assert config.algorithm.weights.weights_from == f"{dense.runs[0].directory}/checkpoints/last.pt"


def test_a_search(tmp_path: Path) -> None:
    arguments = ["sweep=quick/search", *QUEUED, *SMALL[:-1], "trainer.duration=1ep"]
    first = command(tmp_path, "train.py", "-m", *arguments, "hydra.sweeper.trials=1")
    assert first.returncode == 0, first.stderr
    more = command(tmp_path, "train.py", "-m", *arguments, "hydra.sweeper.trials=2")
    assert more.returncode == 0, more.stderr
    assert "1 of 2 trials have ended" in more.stdout
    assert "1 submitted as job" in more.stdout
    assert more.stdout.splitlines()[-1].startswith("best of 2: trial ")
    assert len(list((tmp_path / "search" / "mnist_sample").glob("*/status.json"))) == 2


def test_the_table_waits_for_every_batch(tmp_path: Path) -> None:
    sweep = submit(tmp_path, *SMALL, "seed=0,1", "hydra.sweeper.max_batch_size=1", "+cluster.sbatch.hold=true")
    first, second = (str(run.job).partition("_")[0] for run in sweep.runs)
    asked = ["squeue", "--noheader", "--name=altprop-table", "--format=%A %E"]
    tables = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    cancel(sweep)
    assert first != second == sweep.job
    [told] = [line for line in tables if f"afterany:{first}" in line]
    assert told.startswith(f"{sweep.table} ")
    assert f"afterany:{second}" in told


def test_submitting_imports_neither_torch_nor_optuna(tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["train.py", "-m", *{[*QUEUED, *SMALL]!r}, "+cluster.sbatch.hold=true"]
from altprop.commands.entry import entry_point
entry_point("train", print)
assert not {{"torch", "pydantic", "optuna"}} & sys.modules.keys()
"""
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    cancel(next(manifests(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "1 submitted as job" in done.stdout


def test_status_lists_every_run(sweep: Manifest, outputs: Path) -> None:
    listed = command(outputs, "status.py", f"folder={sweep.folder}")
    assert listed.returncode == 0, listed.stderr
    lines = [line.split() for line in listed.stdout.splitlines() if " done " in line]
    assert len([words for words in lines if words[-1].startswith(f"{sweep.job}_")]) == 2
    unknown = command(outputs, "status.py", "group=nothing")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("group: nothing was never swept; groups of sweeps: scratch")
