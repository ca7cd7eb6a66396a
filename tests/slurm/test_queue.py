"""Sweeps know what is in the queue, and say it: two commands at once, refusals, cancellations, jobs that can never start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from altprop.commands import status
from altprop.config.project import ROOT
from altprop.sweeping.jobs import Manifest, SweepRun, manifests
from altprop.sweeping.outcome import outcome
from altprop.sweeping.queue import ask
from tests.slurm.jobs import (
    ENDLESS,
    LONG,
    PAUSING,
    QUEUED,
    SMALL,
    cancel,
    command,
    interrupt,
    log_of,
    state,
    submit,
    wait_for,
    wait_for_end,
)

HOLD = [*SMALL, "trainer.duration=1ep", "+cluster.sbatch.hold=true"]
UNHELD = [*SMALL, "trainer.duration=1ep"]


@pytest.fixture(scope="module", autouse=True)
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepRun]:
    """A run that reaches its time limit twice while the other tests of this module are at work."""
    # SLURM looks at limits every 30 s and signals what would be due before it looks again: 10 to 40 s after the start.
    limits = ["cluster.time=1", "cluster.signal_delay=20", "cluster.max_timeouts=1"]
    sweep = submit(tmp_path_factory.mktemp("limited"), *ENDLESS, *limits, table=False)
    yield sweep.runs[0]
    cancel(sweep)


def rows_of(outputs: Path) -> list[tuple[str, str]]:
    """State and SLURM's pending reason of each run, as ``status.py`` shows them."""
    sweep = status.find(outputs)
    queue = ask(run.job for run in sweep.runs)
    rows = [status.row_of(run, queue) for run in sweep.runs]
    return [(row["state"], row["pending"]) for row in rows]


def wrapped(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Put a script before SLURM's own command ``name``."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_starting_over_holds_for_the_submission_and_not_for_its_requeues(tmp_path: Path) -> None:
    [run] = submit(tmp_path, *LONG, *PAUSING, "resume=false", table=False).runs
    interrupt(run)
    wait_for("the queue", lambda: state(run) == "PENDING")
    assert rows_of(tmp_path) == [("waiting", "BeginTime")]
    wait_for_end(run)
    assert run.status["status"] == "done"
    assert "resuming from step" in log_of(run)


def test_states_and_verbs_of_held_jobs(tmp_path: Path) -> None:
    outputs = tmp_path / 'it\'s (one), two="three"'  # folders and names may contain anything that SLURM accepts
    two = [*HOLD, "seed=0,1", r"name='a\'b \"c'"]
    commands = [[sys.executable, str(ROOT / "train.py"), "-m", *QUEUED, *two]] * 2
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs)}
    both = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for line in commands]
    told = "".join(process.communicate(timeout=120)[0] for process in both)
    assert sorted("submitted as job" in line for line in told.splitlines() if line.startswith("2 runs")) == [False, True]
    assert "2 in the queue already; nothing to submit" in told
    [sweep] = [manifest for manifest in manifests(outputs) if manifest.job is not None]
    assert sweep.table is not None
    assert rows_of(outputs) == [("waiting", "JobHeldUser")] * 2

    killed = Manifest.read(sweep.folder)  # as if the command had been killed right after sbatch
    assert killed is not None
    for run in killed.runs:
        run.job, run.log, run.submitting = None, None, True
    killed.write()
    for other in (other for other in sweep.folder.parent.glob("2*") if other != sweep.folder):
        (other / "runs.json").unlink()
    again = command(outputs, "train.py", "-m", *QUEUED, *two)
    assert "2 in the queue already; nothing to submit" in again.stdout, again.stderr

    subprocess.run(["scancel", str(sweep.runs[1].job)], check=True)
    assert [state for state, _ in rows_of(outputs)] == ["waiting", "interrupted"]

    canceled = command(outputs, "status.py", "action=cancel")
    assert canceled.stdout == "canceled: 1 run and the table\n", canceled.stderr
    wait_for("SLURM", lambda: not ask([sweep.runs[0].job]).may_run(str(sweep.runs[0].job)))
    assert [state for state, _ in rows_of(outputs)] == ["interrupted"] * 2


def test_what_can_never_start_is_shown_and_replaced(tmp_path: Path) -> None:
    before = submit(tmp_path / "before", *HOLD, "seed=0")
    subprocess.run(["scancel", str(before.job), str(before.table)], check=True)
    sweep = submit(tmp_path, *UNHELD, "seed=0", f"+cluster.sbatch.dependency=afterok:{before.job}")
    [run] = sweep.runs
    wait_for("SLURM", lambda: (job := ask([run.job]).of(run.job)) is not None and job.never)
    found = outcome(run, ask([run.job]))
    assert found.state == "stuck"
    assert found.reason.startswith("DependencyNeverSatisfied: a job that it depends on failed or was canceled")
    replaced = submit(tmp_path, *HOLD, "seed=0")
    assert replaced.job is not None
    assert not ask([run.job]).may_run(str(run.job))
    cancel(replaced)


def test_refusals_are_explained_and_nothing_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    table = f"""if grep -q job-name=altprop-table "$1" || grep -q seed=1 "$1"; then
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2; exit 1; fi
    exec {real} "$@" """
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", table)
    sweep = command(tmp_path, "train.py", "-m", *QUEUED, *HOLD, "seed=0")
    assert sweep.returncode == 0, sweep.stderr
    assert sweep.stderr.count("job submit limit") == 1
    noted = next(manifests(tmp_path))
    assert noted.table is None
    assert noted.runs[0].job is not None
    (tmp_path / "bin" / "sbatch").unlink()
    again = command(tmp_path, "train.py", "-m", *QUEUED, *HOLD, "seed=0")
    assert "1 in the queue already; nothing to submit" in again.stdout
    table_job = next(manifests(tmp_path)).table  # the one that was missing
    assert table_job is not None
    subprocess.run(["scancel", table_job], check=True)
    wait_for("SLURM", lambda: not ask([table_job]).may_run(str(table_job)))
    command(tmp_path, "train.py", "-m", *QUEUED, *HOLD, "seed=0")
    assert next(manifests(tmp_path)).table not in (None, table_job)

    wrapped(
        monkeypatch, tmp_path / "bin", "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    silent = command(tmp_path, "train.py", "-m", *QUEUED, *HOLD, "seed=0")
    assert silent.returncode == 1
    assert "SLURM does not say what is in its queue" in silent.stderr
    wrapped(monkeypatch, tmp_path / "bin", "sacct", "exit 1")
    told = command(tmp_path, "status.py").stdout
    assert "1 unknown" in told
    assert "SLURM does not answer: slurm_load_jobs error" in told
    (tmp_path / "bin" / "squeue").unlink()
    cancel(next(manifests(tmp_path)))

    long_array = "+cluster.sbatch.array=0-5000"
    limited = command(tmp_path / "limited", "train.py", "-m", *QUEUED, *HOLD, long_array)
    assert limited.returncode == 1
    assert limited.stderr.count("Invalid job array specification") == 1
    assert "hydra.sweeper.max_batch_size=500" in limited.stderr


def test_a_job_that_is_canceled_while_it_starts_ends_at_once(tmp_path: Path) -> None:
    [run] = submit(tmp_path, *LONG, table=False).runs
    wait_for("the start", lambda: run.log is not None and Path(run.log).exists() and "Loading pickle" in run.printed)
    subprocess.run(["scancel", str(run.job)], check=True)
    wait_for_end(run)
    assert run.status == {}
    assert rows_of(tmp_path) == [("interrupted", "")]


def test_a_refused_batch_is_noted_and_submitted_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    script = f"""grep -q job-name=altprop-table "$1" && exec {real} "$@"
    echo >> {tmp_path}/calls
    [ "$(wc -l < {tmp_path}/calls)" = 2 ] || exec {real} "$@"
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1"""
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", script)
    batches = [*HOLD, "seed=0,1,2", "hydra.sweeper.max_batch_size=1"]
    told = command(tmp_path, "train.py", "-m", *QUEUED, *batches)
    assert told.returncode == 1
    assert "the same command submits the rest once some jobs have ended" in told.stderr
    noted = next(manifests(tmp_path))
    assert [run.job is not None for run in noted.runs] == [True, False, True]
    assert "QOSMaxSubmit" in str(noted.runs[1].refused)
    assert [state for state, _ in rows_of(tmp_path)] == ["waiting", "failed", "waiting"]
    again = command(tmp_path, "train.py", "-m", *QUEUED, *batches)
    assert again.returncode == 0, again.stderr
    runs = next(manifests(tmp_path)).runs
    assert [run.job == before.job for run, before in zip(runs, noted.runs, strict=True)] == [True, False, True]
    for sweep in manifests(tmp_path):
        cancel(sweep)


def test_ctrl_c_during_sbatch_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "a:b"  # a colon separates folders in PYTHONPATH
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    wrapped(monkeypatch, tmp_path / "bin", "sbatch", f'touch {tmp_path}/called; sleep 1; exec {real} "$@"')
    line = [sys.executable, str(ROOT / "train.py"), "-m", *QUEUED, *HOLD, "seed=0"]
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs)}
    process = subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("sbatch", (tmp_path / "called").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    noted = next(manifests(outputs))
    [run] = noted.runs
    assert run.job is not None
    again = command(outputs, "train.py", "-m", *QUEUED, *HOLD, "seed=0")
    assert "1 in the queue already; nothing to submit" in again.stdout
    subprocess.run(["scontrol", "release", run.job], check=True)
    wait_for_end(run)
    assert run.status["status"] == "done"
    cancel(noted)


def test_a_job_whose_interpreter_is_missing_says_so(tmp_path: Path) -> None:
    environment = Path(sys.prefix)
    (tmp_path / "python" / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "lib"):
        (tmp_path / "python" / name).symlink_to(environment / name)
    python = tmp_path / "python" / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    line = [str(python), str(ROOT / "train.py"), "-m", *QUEUED, *HOLD, "seed=0"]
    subprocess.run(line, env={**os.environ, "ALTPROP_OUTPUTS": str(tmp_path)}, check=True, capture_output=True, timeout=120)
    [run] = next(manifests(tmp_path)).runs
    python.unlink()
    subprocess.run(["scontrol", "release", str(run.job)], check=True)
    wait_for_end(run)
    reason = outcome(run, ask([run.job])).reason
    assert "No such file or directory" in reason
    assert "bin/python" in reason


def test_time_limits_queue_again_a_bounded_number_of_times(limited: SweepRun) -> None:
    """The last test of this module, because it takes more than a minute."""

    def reason() -> str:
        wait_for_end(limited)
        again = limited.status["job"]["slurm_restart_count"] == "1"
        found = outcome(limited, ask([limited.job]))
        return found.reason if again and found.state == "failed" else ""

    assert "timed-out too many times" in wait_for("the second time limit", reason, every=0.5)
    assert "Traceback" not in log_of(limited).rpartition("resuming from step")[0]
