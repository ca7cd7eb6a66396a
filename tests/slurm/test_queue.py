"""Sweeps know what is in the queue, and say it: two commands at once, refusals, cancellations, jobs that can never start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from altprop.config.project import ROOT
from altprop.sweeping.jobs import Manifest, manifests
from altprop.sweeping.queue import ask
from tests.slurm.jobs import LONG, SMALL, command, log_of, signal_job, state, submit, wait_for, wait_for_end, wait_for_step

HOLD = [*SMALL, "trainer.duration=1ep", "+cluster.sbatch.hold=true"]
UNHELD = [*SMALL, "trainer.duration=1ep"]


def words_of(outputs: Path, *arguments: str) -> list[list[str]]:
    """The rows that ``status.py`` prints, as words."""
    told = command(outputs, "status.py", *arguments)
    assert told.returncode == 0, told.stderr
    return [line.split() for line in told.stdout.splitlines() if re.match(r"\d+  ", line)]


def wrapped(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Put a script before SLURM's own command ``name``."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_starting_over_holds_for_the_submission_and_not_for_its_requeues(tmp_path: Path) -> None:
    [run] = submit(tmp_path, *LONG, "trainer.duration=40ep", "resume=false").runs
    wait_for_step(run)
    signal_job(run, "USR2")
    wait_for("saving", lambda: run.status["status"] == "preempted")
    wait_for("the queue", lambda: state(run) == "PENDING")
    [row] = words_of(tmp_path)
    assert "waiting" in row
    assert row[-1] == "BeginTime"
    wait_for_end(run)
    assert run.status["status"] == "done"
    assert "resuming from step" in log_of(run)


def test_states_and_verbs_of_held_jobs(tmp_path: Path) -> None:
    outputs = tmp_path / 'it\'s (one), two="three"'  # folders and names may contain anything that SLURM accepts
    two = [*HOLD, "seed=0,1", r"name='a\'b \"c'"]
    commands = [[sys.executable, str(ROOT / "train.py"), "-m", "cluster=slurm", *two]] * 2
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs)}
    both = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for line in commands]
    told = "".join(process.communicate(timeout=120)[0] for process in both)
    assert sorted("submitted as job" in line for line in told.splitlines() if line.startswith("2 runs")) == [False, True]
    assert "2 in the queue already; nothing to submit" in told
    [sweep] = [manifest for manifest in manifests(outputs) if manifest.job is not None]
    assert sweep.table is not None
    assert [(row[2], row[-1]) for row in words_of(outputs)] == [("waiting", "JobHeldUser")] * 2

    killed = Manifest.read(sweep.folder)  # as if the command had been killed right after sbatch
    assert killed is not None
    for run in killed.runs:
        run.job, run.log, run.submitting = None, None, True
    killed.write()
    for other in (other for other in sweep.folder.parent.glob("2*") if other != sweep.folder):
        (other / "runs.json").unlink()
    again = command(outputs, "train.py", "-m", "cluster=slurm", *two)
    assert "2 in the queue already; nothing to submit" in again.stdout, again.stderr

    subprocess.run(["scancel", str(sweep.runs[1].job)], check=True)
    assert [row[2] for row in words_of(outputs)] == ["waiting", "interrupted"]

    canceled = command(outputs, "status.py", "action=cancel")
    assert canceled.stdout == "canceled: 1 run and the table\n", canceled.stderr
    wait_for("SLURM", lambda: not ask([sweep.runs[0].job]).may_run(str(sweep.runs[0].job)))
    assert [row[2] for row in words_of(outputs)] == ["interrupted"] * 2


def test_what_can_never_start_is_shown_and_replaced(tmp_path: Path) -> None:
    before = submit(tmp_path / "before", *HOLD, "seed=0")
    subprocess.run(["scancel", str(before.job), str(before.table)], check=True)
    sweep = submit(tmp_path, *UNHELD, "seed=0", f"+cluster.sbatch.dependency=afterok:{before.job}")
    [run] = sweep.runs
    wait_for("SLURM", lambda: (job := ask([run.job]).of(run.job)) is not None and job.never)
    told = command(tmp_path, "status.py").stdout
    assert "stuck" in told
    assert "DependencyNeverSatisfied: a job that it depends on failed or was canceled" in told
    replaced = submit(tmp_path, *HOLD, "seed=0")
    assert replaced.job is not None
    assert not ask([run.job]).may_run(str(run.job))
    command(tmp_path, "status.py", "action=cancel")


def test_refusals_are_explained_and_nothing_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, problem in (
        (["cluster.time=0"], "cluster.time: 0; a whole number from 1 on"),
        (["cluster.time=2"], "cluster.time: 2 min is not longer than cluster.signal_delay, 120 s"),
    ):
        refused = command(tmp_path / "nothing", "train.py", "-m", "cluster=slurm", *UNHELD, *wrong)
        assert (refused.returncode, refused.stderr.startswith(problem)) == (2, True), refused.stderr
        assert not (tmp_path / "nothing").exists()

    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    table = f"""if grep -q job-name=altprop-table "$1" || grep -q seed=1 "$1"; then
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2; exit 1; fi
    exec {real} "$@" """
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", table)
    sweep = command(tmp_path, "train.py", "-m", "cluster=slurm", *HOLD, "seed=0")
    assert sweep.returncode == 0, sweep.stderr
    assert sweep.stderr.count("job submit limit") == 1
    noted = next(manifests(tmp_path))
    assert noted.table is None
    assert noted.runs[0].job is not None
    (tmp_path / "bin" / "sbatch").unlink()
    again = command(tmp_path, "train.py", "-m", "cluster=slurm", *HOLD, "seed=0")
    assert "1 in the queue already; nothing to submit" in again.stdout
    assert next(manifests(tmp_path)).table is not None  # the table that is missing

    wrapped(
        monkeypatch, tmp_path / "bin", "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    silent = command(tmp_path, "train.py", "-m", "cluster=slurm", *HOLD, "seed=0")
    assert silent.returncode == 1
    assert "SLURM does not say what is in its queue" in silent.stderr
    wrapped(monkeypatch, tmp_path / "bin", "sacct", "exit 1")
    told = command(tmp_path, "status.py").stdout
    assert "1 unknown" in told
    assert "SLURM does not answer: slurm_load_jobs error" in told
    (tmp_path / "bin" / "squeue").unlink()
    command(tmp_path, "status.py", "action=cancel")

    limited = command(
        tmp_path / "limited", "train.py", "-m", "cluster=slurm", *HOLD, "seed=range(0,1100)", "hydra.sweeper.max_batch_size=1100"
    )
    assert limited.returncode == 1
    assert limited.stderr.count("Invalid job array specification") == 1
    assert "hydra.sweeper.max_batch_size=500" in limited.stderr


def test_a_job_that_is_canceled_while_it_starts_ends_at_once(tmp_path: Path) -> None:
    [run] = submit(tmp_path, *LONG).runs
    wait_for("the start", lambda: run.log is not None and Path(run.log).exists() and "Loading pickle" in run.printed)
    subprocess.run(["scancel", str(run.job)], check=True)
    wait_for_end(run)
    assert run.status == {}
    [row] = words_of(tmp_path)
    assert "interrupted" in row
