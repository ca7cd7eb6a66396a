"""The directory of one run: its lock, its status, its files.

``config.yaml``, ``meta.json``, ``status.json``, ``metrics.jsonl`` and ``.csv``, ``checkpoints/``, ``figures/``, ``train.log``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from altprop.files import read_json, write_json, write_text
from altprop.problems import RunFailed

LOCK = ".lock"
JOB_VARIABLES = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "CUDA_VISIBLE_DEVICES")


class RunDirectory:
    """The paths and small files of a run. Creating the object writes nothing."""

    def __init__(self, path: Path, name: str, key: str) -> None:
        self.path = path
        self.name = name
        self.key = key
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "train.log"
        self.config = path / "config.yaml"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process. If no run starts inside the context, a new directory is removed again.

        The operating system releases the lock when the process ends, however it ends. Raises :class:`RunFailed` if another
        process holds the lock.
        """
        new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        lock = _lock(self.path)
        try:
            lock.acquire()
        except Timeout as error:
            holder = (self.read_status() or {}).get("pid", "unknown")
            raise RunFailed(
                f"{self.path}: another process ({holder}) is training this run; wait for it, or change the seed"
            ) from error
        try:
            yield
        finally:
            if new and not self.config.exists():
                self._remove(new)
            lock.release()

    def _remove(self, new: Iterable[Path]) -> None:
        """Remove what a refused run left in its new directory, and the folders ``new`` that are empty."""
        self.log.unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            for folder in new:
                folder.rmdir()

    def read_status(self) -> dict[str, Any] | None:
        """The content of ``status.json``, or None if the run never started."""
        return read_json(self.path / "status.json")

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        return (self.read_status() or {}).get("status") == "done"

    def write_status(self, status: str, **fields: Any) -> None:
        """Replace ``status.json``: ``status`` (running, done, failed, preempted, interrupted), identity, times, ``fields``."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        previous = self.read_status() or {}
        job = {name.lower(): os.environ[name] for name in JOB_VARIABLES if name in os.environ}
        write_json(
            self.path / "status.json",
            {
                "status": status,
                "name": self.name,
                "key": self.key,
                "started_at": previous.get("started_at", now),
                "updated_at": now,
                "pid": os.getpid(),
                **({"job": job} if job else {}),
                **fields,
            },
        )

    def write_config(self, text: str) -> None:
        """Write the resolved configuration unless the file already holds it."""
        if not self.config.exists() or self.config.read_text() != text:
            write_text(self.config, text)

    def clear(self) -> None:
        """Remove the files of an earlier attempt, for a run that starts over (``resume=false``)."""
        for pattern in ("checkpoints/*.pt", "figures/*.png", "metrics.*", "status.json", "train.log", "config.yaml", "meta.json"):
            for file in self.path.glob(pattern):
                file.unlink()

    def point_latest(self, outputs: Path) -> None:
        """Make ``outputs/latest`` a link to this run."""
        link = outputs / "latest"
        temporary = outputs / f".latest.{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(os.path.relpath(self.path, outputs))
            os.replace(temporary, link)
        except OSError:  # no symbolic links here, or "latest" is a directory; the link is only a convenience
            temporary.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the run in ``path``, which need not exist."""
    lock = _lock(path)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock:
            return False
    except Timeout:
        return True


def _lock(path: Path) -> FileLock:
    return FileLock(path / LOCK, timeout=0)
