"""Sweeps know what is in the queue, and say it: two commands at once, refusals, cancellations, jobs that can never start."""

from __future__ import annotations

import os
import re
import signal
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
    [run] = submit(tmp_path, *LONG, "trainer.duration=40ep", "resume=false", table=False).runs
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
    table_job = next(manifests(tmp_path)).table  # the one that was missing
    assert table_job is not None
    subprocess.run(["scancel", table_job], check=True)
    wait_for("SLURM", lambda: not ask([table_job]).may_run(str(table_job)))
    command(tmp_path, "train.py", "-m", "cluster=slurm", *HOLD, "seed=0")
    assert next(manifests(tmp_path)).table not in (None, table_job)

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
    [run] = submit(tmp_path, *LONG, table=False).runs
    wait_for("the start", lambda: run.log is not None and Path(run.log).exists() and "Loading pickle" in run.printed)
    subprocess.run(["scancel", str(run.job)], check=True)
    wait_for_end(run)
    assert run.status == {}
    [row] = words_of(tmp_path)
    assert "interrupted" in row


def test_a_refused_batch_is_noted_and_submitted_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    script = f"""grep -q job-name=altprop-table "$1" && exec {real} "$@"
    echo >> {tmp_path}/calls
    [ "$(wc -l < {tmp_path}/calls)" = 2 ] || exec {real} "$@"
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1"""
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", script)
    batches = [*HOLD, "seed=0,1,2", "hydra.sweeper.max_batch_size=1"]
    told = command(tmp_path, "train.py", "-m", "cluster=slurm", *batches)
    assert told.returncode == 1
    assert "the same command submits the rest once some jobs have ended" in told.stderr
    noted = next(manifests(tmp_path))
    assert [run.job is not None for run in noted.runs] == [True, False, True]
    assert "QOSMaxSubmit" in str(noted.runs[1].refused)
    assert [row[2] for row in words_of(tmp_path)] == ["waiting", "failed", "waiting"]
    again = command(tmp_path, "train.py", "-m", "cluster=slurm", *batches)
    assert again.returncode == 0, again.stderr
    runs = next(manifests(tmp_path)).runs
    assert [run.job == before.job for run, before in zip(runs, noted.runs, strict=True)] == [True, False, True]
    for folder in {manifest.folder for manifest in manifests(tmp_path)}:
        command(tmp_path, "status.py", "action=cancel", f"folder={folder}")


def test_ctrl_c_during_sbatch_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "a:b"  # a colon separates folders in PYTHONPATH
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", f'touch {tmp_path}/called; sleep 1; exec {real} "$@"')
    line = [sys.executable, str(ROOT / "train.py"), "-m", "cluster=slurm", *HOLD, "seed=0"]
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs)}
    process = subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("sbatch", (tmp_path / "called").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    noted = next(manifests(outputs))
    [run] = noted.runs
    assert run.job is not None
    again = command(outputs, "train.py", "-m", "cluster=slurm", *HOLD, "seed=0")
    assert "1 in the queue already; nothing to submit" in again.stdout
    subprocess.run(["scontrol", "release", run.job], check=True)
    wait_for_end(run)
    assert run.status["status"] == "done"
    command(outputs, "status.py", "action=cancel")


def test_a_job_whose_interpreter_is_missing_says_so(tmp_path: Path) -> None:
    environment = Path(sys.prefix)
    (tmp_path / "python" / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "lib"):
        (tmp_path / "python" / name).symlink_to(environment / name)
    python = tmp_path / "python" / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    line = [str(python), str(ROOT / "train.py"), "-m", "cluster=slurm", *HOLD, "seed=0"]
    subprocess.run(line, env={**os.environ, "ALTPROP_OUTPUTS": str(tmp_path)}, check=True, capture_output=True, timeout=120)
    [run] = next(manifests(tmp_path)).runs
    python.unlink()
    subprocess.run(["scontrol", "release", str(run.job)], check=True)
    wait_for_end(run)
    [line] = [line for line in command(tmp_path, "status.py").stdout.splitlines() if str(run.log) in line]
    assert "No such file or directory" in line
    assert "bin/python" in line
