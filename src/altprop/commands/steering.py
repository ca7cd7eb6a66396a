"""The verbs of ``status.py`` that change something: cancel and retry runs, follow a log, remove what is old."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig

from altprop.config.quoting import quoted
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import arguments, command
from altprop.sweeping.jobs import ONLY, Manifest, SweepRun, manifests
from altprop.sweeping.outcome import outcome
from altprop.sweeping.queue import Queue, ask, ask_surely
from altprop.training.locks import is_locked
from altprop.training.signals import Stopped

POLL_SECONDS = 0.5
STATE_SECONDS = 5.0
"""How often a command that follows a log looks whether the run has ended."""
UNFINISHED = ("running", "waiting", "preempted", "unknown")
"""States of runs that may still write something."""
DAY = 86_400.0
ENDED_MEANWHILE = r"Invalid job id|already completing or completed"
"""What scancel says about jobs that have ended."""


@contextmanager
def until_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends this context, not the command."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except Stopped as stop:
        if stop.number != signal.SIGINT:
            raise


def cancel(config: DictConfig, manifest: Manifest, numbers: Sequence[int]) -> None:
    """Cancel the runs ``numbers``: they save and stop. If they are all runs of the sweep, nothing of it is left to come.

    Raises :class:`RunFailed` if SLURM does not answer, or a run is on another machine.
    """
    runs = [manifest.runs[number] for number in numbers]
    whole = len(runs) == len(manifest.runs)
    if together := _in_the_same_jobs(manifest, numbers):
        description = f"the runs {', '.join(map(str, together))} share a job and can only be canceled together"
        raise ConfigError([Problem("run", description, "all of them", f"run=[{','.join(map(str, together))}]")])
    queue = ask_surely([*(run.job for run in runs), manifest.table if whole else None])
    jobs = [run.job for run in runs if run.job is not None and (job := queue.of(run.job)) is not None and job.live]
    table = manifest.table if whole and manifest.table is not None and queue.may_run(manifest.table) else None
    if jobs or table:
        _scancel(list(dict.fromkeys([*jobs, *([table] if table else [])])))
    stopped = 0
    if whole and is_locked(manifest.folder):
        _terminate(manifest.launcher)  # the command stops its workers
        stopped = sum(_is_training(run) for run in runs)
    else:
        for run in runs:
            if run.job is None and _is_training(run):
                _terminate(run.status)
                stopped += 1
    count, locked = len(jobs) + stopped, is_locked(manifest.folder)
    if count or table or (whole and locked):
        print(f"canceled: {count} run{'s' * (count != 1)}{' and the table' if table else ''}")
    elif whole:
        print("nothing to cancel: no run is in the queue or training")
    else:
        rest = "; cancel the whole sweep so that its command does not start them later" if locked else ""
        print(f"nothing to cancel: none of these runs is in the queue or training{rest}")


def _in_the_same_jobs(manifest: Manifest, numbers: Sequence[int]) -> list[int]:
    """The runs ``numbers`` and all others in their jobs; empty if there are no others."""
    jobs = {manifest.runs[number].job for number in numbers} - {None}
    together = [number for number, run in enumerate(manifest.runs) if run.job in jobs]
    return sorted({*numbers, *together}) if set(together) - set(numbers) else []


def _scancel(jobs: Sequence[str]) -> None:
    """Cancel ``jobs``, some of which may have ended since SLURM was asked. Raises :class:`RunFailed`."""
    done = subprocess.run(["scancel", *jobs], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if line.strip() and not re.search(ENDED_MEANWHILE, line)]
    if done.returncode and (complaints or not done.stderr):
        reason = "; ".join(complaints) or f"scancel ended with {done.returncode}"
        raise RunFailed(f"SLURM did not cancel all jobs: {reason}; repeat the command")


def _is_training(run: SweepRun) -> bool:
    return run.directory is not None and is_locked(Path(run.directory)) and run.status.get("status") == "running"


def _terminate(process: dict[str, object]) -> None:
    """Send SIGTERM to the process with this ``pid`` on this ``host``."""
    host, number = process.get("host"), process.get("pid")
    if host != socket.gethostname() or not isinstance(number, int):
        raise RunFailed(f"process {number} is on {host}; cancel it there")
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)


def retry(config: DictConfig, manifest: Manifest, numbers: Sequence[int]) -> None:
    """Give the sweep's command again, restricted to those of the runs ``numbers`` that have failed. Raises ConfigError."""
    queue = ask_surely(run.job for run in manifest.runs)
    failed = [run for run in (manifest.runs[number] for number in numbers) if outcome(run, queue).state == "failed"]
    directories = [run.directory for run in failed if run.directory is not None]
    if failed and not directories:
        description = "the runs that failed have no run directories, so they cannot be told from the others"
        raise ConfigError([Problem("action", description, "the sweep's own command, which repeats all of its runs")])
    if not failed:
        print(f"nothing to retry: {'no run' if len(numbers) == len(manifest.runs) else 'none of these runs'} has failed")
        return
    if not manifest.command:
        raise ConfigError([Problem("action", f"{manifest.folder} does not say how it was started", "repeat its command by hand")])
    outputs = Path(config.paths.outputs).absolute()
    line = [*arguments("train"), *manifest.command, f"paths.outputs={quoted(str(outputs))}"]
    code = subprocess.run(line, env={**os.environ, ONLY: json.dumps(directories)}).returncode
    if code:
        raise RunFailed(f"{len(directories)} run{'s' * (len(directories) != 1)} retried; see above", code)


def logs(config: DictConfig, manifest: Manifest, numbers: Sequence[int]) -> None:
    """Print the log of one run and follow it until the run ends, or Ctrl-C. Raises ConfigError if it is not clear of which."""
    last = len(manifest.runs) - 1
    if len(numbers) != 1:
        description = f"names {len(numbers)} runs" if config.run is not None else "is not set"
        raise ConfigError([Problem("run", description, f"the number of one run, 0 to {last}", "run=0")])
    run = manifest.runs[numbers[0]]
    path = Path(run.log) if run.log is not None else None
    if path is None and run.directory is not None:
        path = Path(run.directory) / "train.log"
    if path is None:
        raise ConfigError([Problem("run", f"{numbers[0]} has no log", "a run that was started")])
    if not path.exists():
        _explain_missing(path, run, manifest)
    with until_ctrl_c():
        for text in _followed(path, run):
            print(text, end="", flush=True)
    if not path.exists():
        raise RunFailed(f"{path} does not exist: the run has printed nothing")


def _explain_missing(path: Path, run: SweepRun, manifest: Manifest) -> None:
    """Say why a run has no log yet. Raises :class:`RunFailed` if there is nothing to wait for."""
    found = outcome(run, ask([run.job]))
    if found.state == "waiting" and run.job is None and not is_locked(manifest.folder):
        raise RunFailed("the run has not started and is not in any queue: the sweep's command starts it")
    if found.state in UNFINISHED:
        print(f"{path} does not exist so far: the run is {found.state}; Ctrl-C ends this command", file=sys.stderr)


def _followed(path: Path, run: SweepRun) -> Iterator[str]:
    """What is in ``path``, and what is added to it until ``run`` ends. A file that has become shorter was started over."""
    place, asked, ended = 0, 0.0, False
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        if time.monotonic() - asked > STATE_SECONDS or not asked:
            asked = time.monotonic()
            ended = outcome(run, ask([run.job])).state not in UNFINISHED
        with suppress(FileNotFoundError), path.open("rb") as stream:
            if place > os.fstat(stream.fileno()).st_size:
                place = 0
            stream.seek(place)
            text = stream.read()
            place += len(text)
            yield decoder.decode(text)
        if ended:
            return
        time.sleep(POLL_SECONDS)


def clean(outputs: Path, days: float, *, delete: bool) -> None:
    """Print what is older than ``days`` and not in use, with its size, and remove it if ``delete``. Runs are never removed."""
    used, complaint = _used(outputs)
    if complaint:
        print(f"SLURM does not answer ({complaint}): sweeps whose jobs may still run are left out", file=sys.stderr)
    leftovers = {"sweeps": _old_sweeps(outputs, days, used), "copies of the code": _old_snapshots(outputs, days, used)}
    leftovers["temporary files"] = _temporary(outputs)
    total = 0
    for name, paths in leftovers.items():
        size = sum(map(_size, paths))
        total += size
        print(f"{name}: {len(paths)}, {size / 1e6:.1f} MB")
        for path in paths:
            print(f"  {path.relative_to(outputs)}")
    if not delete:
        print(f"{total / 1e6:.1f} MB in all; to remove them: {command('status')} action=clean days={days:g} delete=true")
        return
    for path in (path for paths in leftovers.values() for path in paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    left = [path for paths in leftovers.values() for path in paths if path.exists()]
    rest = sum(map(_size, left))
    print(f"removed: {(total - rest) / 1e6:.1f} MB")
    if left:
        others = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise RunFailed(f"{left[0]}{others} could not be removed; check the permissions of its folder")


def _in_use(manifest: Manifest, queue: Queue) -> bool:
    jobs = [run.job for run in manifest.runs] + [manifest.table]
    submitting = any(run.submitting for run in manifest.runs)
    return submitting or is_locked(manifest.folder) or any(job is not None and queue.may_run(job) for job in jobs)


def _used(outputs: Path) -> tuple[list[Manifest], str]:
    """The sweeps that may still run, and why SLURM did not answer; empty if it did."""
    every = list(manifests(outputs))
    queue = ask(job for manifest in every for job in (manifest.table, *(run.job for run in manifest.runs)))
    return [manifest for manifest in every if _in_use(manifest, queue)], queue.complaint


def _old_sweeps(outputs: Path, days: float, used: Sequence[Manifest]) -> list[Path]:
    at_work = {manifest.folder for manifest in used}
    folders = sorted(path for path in (outputs / ".sweeps").glob("[!.]*") if path.is_dir())
    return [path for path in folders if path not in at_work and _age(path) >= days]


def _old_snapshots(outputs: Path, days: float, used: Sequence[Manifest]) -> list[Path]:
    running = {manifest.code for manifest in used}
    if None in running:  # a sweep of an older version, which does not say which copy it runs
        return []
    folders = sorted(path for path in (outputs / ".snapshots").glob("[!.]*") if path.is_dir())
    return [path for path in folders if str(path) not in running and _age(path) >= days]


def _temporary(outputs: Path) -> list[Path]:
    """Files and folders that a killed process left half-written, at least a day old."""
    patterns = ("**/.*.tmp", ".latest.*", ".snapshots/.copying-*")
    leftovers = {path for pattern in patterns for path in outputs.glob(pattern)}
    return sorted(path for path in leftovers if _age(path) >= 1)


def _age(path: Path) -> float:
    """Days since ``path`` was last changed."""
    return (time.time() - path.lstat().st_mtime) / DAY


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
