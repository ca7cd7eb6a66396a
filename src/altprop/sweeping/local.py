"""A sweep on this machine: one process for each run, each with its own GPU or cores."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from altprop.config.compose import JobComposer, composer_of
from altprop.config.environment import group_of
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import arguments
from altprop.sweeping.checks import problems_of_numbers
from altprop.sweeping.fork_server import usable
from altprop.sweeping.jobs import MANIFEST, Manifest, SweepRun, sweep_runs, to_be_run, unlisted
from altprop.sweeping.notes import SweepNotes
from altprop.sweeping.outcome import settle_killed
from altprop.sweeping.warm import LOST, Servers, WarmProcess, needed
from altprop.training.locks import LOCK, LOCKED, is_locked

POLL_SECONDS = 0.1
REFUSED = 2
"""Exit code of a run whose configuration is refused."""


def launch(
    loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]], servers: Servers | None = None
) -> list[JobReturn]:
    """Run everything that is not finished, each run in a process of its own. If one fails, the others continue.

    With ``servers`` and ``cluster.warm``, processes are forked from one that has torch imported.

    Raises :class:`RunFailed` with one line for each run that failed.
    """
    composer = composer_of(loader, config)
    planned = list(sweep_runs(composer, job_overrides))
    runs = [run for run, _ in planned]
    left = to_be_run(planned)
    folder = Path(config.hydra.sweep.dir).absolute()
    manifest = Manifest.begin(folder, group_of(config), "local", runs)
    for number, run in enumerate(runs, start=len(manifest.runs) - len(runs)):
        run.log = str(folder / f"{number}.log")
    slots = worker_slots(config)
    manifest.write()
    for line in unlisted(job_overrides, runs):
        print(line)
    done = sum(finished for _, finished in planned)
    print(f"{len(runs)} runs, {done} done already; {min(len(slots), len(left))} at a time; logs in {folder}")
    if not (config.cluster.warm and usable() and needed(left, slots)):
        servers = None
    with launching(folder):
        codes = Workers(slots, manifest, servers, composer).run(left)
    if left and len(left) == len(manifest.runs) and all(code == REFUSED for code in codes):
        if servers is not None:
            servers.close()  # its files are in the folder that is removed
        raise RunFailed(_discarded(folder, left), REFUSED)
    if any(codes):
        raise RunFailed(_failures(left, codes), REFUSED if all(code in (0, REFUSED) for code in codes) else 1)
    return [finished_job(run) for run in runs]


def worker_slots(config: DictConfig) -> list[dict[str, str]]:
    """The environment variables of each process that may run at the same time."""
    resources, device = config.resources, config.trainer.device
    per_gpu, workers = config.cluster.per_gpu, config.cluster.workers
    if problems := list(problems_of_numbers(config, "resources", "cluster.per_gpu", "cluster.workers")):
        raise ConfigError(problems)
    if (processes := resources.processes * resources.nodes) > 1:
        description = f"{processes} processes for each run"
        raise ConfigError([Problem("resources", description, "1 in a local sweep; torchrun starts a single run on several GPUs")])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, min(resources.cores, cores)))}
    gpus = visible_gpus() if device in ("auto", "cuda") else []
    if per_gpu > 1 and (workers or not gpus):
        description = f"{per_gpu}, but " + ("cluster.workers says how many runs there are" if workers else "no GPU is used here")
        fix = "cluster.workers=null" if workers else f"cluster.workers={per_gpu}"
        raise ConfigError([Problem("cluster.per_gpu", description, "1", fix)])
    if gpus:
        count = workers or per_gpu * len(gpus)
        return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]
    return [threads] * (workers or max(1, cores // resources.cores))


def visible_gpus() -> list[str]:
    """The names of this machine's NVIDIA GPUs for ``CUDA_VISIBLE_DEVICES``, from the driver and without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def is_taken(run: SweepRun) -> bool:
    """Whether another process is training ``run``: that of another sweep, or one left over from a killed command."""
    return run.directory is not None and is_locked(Path(run.directory))


@contextmanager
def launching(folder: Path) -> Iterator[None]:
    """Lock the sweep's ``folder`` while its command is at work, so that ``status.py`` knows whether its runs will start."""
    lock = FileLock(folder / LOCK)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


class Workers:
    """Processes that train one run each, at most one per slot. A run that another process is training waits for that process."""

    def __init__(
        self,
        slots: Sequence[dict[str, str]],
        manifest: Manifest,
        servers: Servers | None = None,
        composer: JobComposer | None = None,
    ) -> None:
        self.free = list(slots)
        self.manifest = manifest
        self.servers = servers
        self.composer = composer
        self.started: dict[int, float] = {}
        """Number of a run -> when it was last started, in seconds since the epoch."""
        self.busy: dict[int, tuple[subprocess.Popen[bytes] | WarmProcess, dict[str, str]]] = {}

    def run(self, left: Sequence[SweepRun]) -> list[int]:
        """Run ``left`` and return the exit codes in order. Ctrl-C also reaches the workers, which save before this returns."""
        codes: dict[int, int] = {}
        waiting = list(range(len(left)))
        before = signal.signal(signal.SIGTERM, _leave)
        try:
            while waiting or self.busy:
                while self.free and (number := next((each for each in waiting if not is_taken(left[each])), None)) is not None:
                    waiting.remove(number)
                    slot = self.free.pop(0)
                    self.started[number] = time.time()
                    self.busy[number] = (self._start(left[number], slot), slot)
                wait(self.servers.connections() if self.servers is not None else [], POLL_SECONDS)
                for number, code in self._ended():
                    if code in (LOCKED, LOST):  # another process was faster, or the fork server was killed
                        waiting.append(number)
                        continue
                    codes[number] = code
                    self._note(left[number], code, self.started[number])
                    print(f"{len(codes)}/{len(left)} {' '.join(left[number].overrides)}: {'done' if not code else 'failed'}")
        except BaseException:
            self._stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        return [codes[number] for number in range(len(left))]

    def _start(self, run: SweepRun, slot: dict[str, str]) -> subprocess.Popen[bytes] | WarmProcess:
        if self.servers is not None and (warm := self.servers.start(run, slot, self.composer, self.manifest.folder)) is not None:
            return warm
        return run.start(arguments("train"), slot)

    def _note(self, run: SweepRun, code: int, started: float) -> None:
        """Note how the process of ``run`` ended, for ``status.py``."""
        settle_killed(run, code, started)
        if code or run.directory is None:
            run.code = code
            self.manifest.write()

    def _ended(self) -> list[tuple[int, int]]:
        ended = [(number, process.poll()) for number, (process, _) in self.busy.items()]
        for number, code in ended:
            if code is not None:
                self.free.append(self.busy.pop(number)[1])
        return [(number, code) for number, code in ended if code is not None]

    def _stop(self) -> None:
        for process, _ in self.busy.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        if self.servers is not None:
            self.servers.close()
        for process, _ in self.busy.values():
            if isinstance(process, subprocess.Popen):
                process.wait()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def finished_job(run: SweepRun) -> JobReturn:
    """The result of a job for Hydra's sweepers. Its value is read from the run directory."""
    return JobReturn(overrides=run.overrides, _return_value=objective_of(run.status), status=JobStatus.COMPLETED)


def objective_of(status: dict[str, Any], metric: str | None = None) -> float | None:
    """The value of a run that a search compares: ``metric`` at the epoch that the run selected, or at its last one.

    Without a ``metric``, it is the accuracy (percent) on the validation split, or on the test split if there is none.
    """
    record = status.get("best") or status.get("last") or {}
    return record.get(metric) if metric else record.get("validation/accuracy", record.get("test/accuracy"))


def _discarded(folder: Path, refused: Sequence[SweepRun]) -> str:
    """Remove the files of a sweep whose runs were all refused. Returns the messages of the runs."""
    lines = [f"{' '.join(run.overrides)}: {line}" for run in refused for line in run.printed.splitlines()]
    for path in (*(Path(run.log) for run in refused if run.log is not None), folder / MANIFEST):
        path.unlink(missing_ok=True)
    SweepNotes.discard()
    return "\n".join(lines)


def _failures(left: Sequence[SweepRun], codes: Sequence[int]) -> str:
    return "\n".join(
        f"{' '.join(run.overrides)} failed: {run.status.get('error') or run.last_words or f'exit code {code}'} ({run.log})"
        for run, code in zip(left, codes, strict=True)
        if code
    )
