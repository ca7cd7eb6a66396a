"""The directory of one run: its lock, its status, its files.

``config.yaml``, ``meta.json``, ``status.json``, ``metrics.jsonl`` and ``.csv``, ``checkpoints/``, ``figures/``, ``train.log``.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from altprop.faults import FULL
from altprop.files import json_text, overwrite, read_bytes, remove_leftovers, temporary_path, write_json, write_text
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.tracking import status_file
from altprop.training.checkpoint import CheckpointStore
from altprop.training.locks import BEGUN, LOCK, LOCK_SECONDS, LOCKED, SUBMISSION, heartbeat

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems that have no locks."""
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
        self.started = False
        """Whether this process has started the run: from here on, its status says what happened."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process. If no run starts inside the context, a new directory is removed again.

        The operating system releases the lock when the process ends, however it ends. Files that killed processes left half
        written are removed. Raises :class:`RunFailed` if another process holds the lock, and :class:`ConfigError` if the
        directory cannot be used.
        """
        try:
            new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._acquire()
        except OSError as error:
            raise ConfigError([self._unusable(error)]) from error
        try:
            remove_leftovers(self.path, self.checkpoints, self.figures)
            with heartbeat(self.path / LOCK):
                yield
        finally:
            if new and not self.config.exists():
                self._remove(new)
            if lock is not None:
                lock.release()

    def _acquire(self) -> FileLock | None:
        """The lock, or None with a warning if the file system has no locks."""
        lock = _lock(self.path)
        try:
            lock.acquire()
        except Timeout as error:
            holder = (self.read_status() or {}).get("pid", "unknown")
            raise RunFailed(
                f"{self.path}: another process ({holder}) is training this run; wait for it, or change the seed", LOCKED
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: the file system has no locks; make sure that no other process trains this run", self.path)
            return None
        return lock

    def _unusable(self, error: OSError) -> Problem:
        where, reason = error.filename or self.path, error.strerror or str(error)
        if error.errno == errno.ENAMETOOLONG:
            return Problem("name", f"cannot create {where} ({reason})", "a shorter name", "name=short")
        description = f"cannot write to {where} ({reason})"
        return Problem("paths.outputs", description, "must be a writable folder", "paths.outputs=outputs")

    def _remove(self, new: Iterable[Path]) -> None:
        """Remove what a refused run left in its new directory, and the folders ``new`` that are empty."""
        with suppress(OSError):
            self.log.unlink(missing_ok=True)
            (self.path / LOCK).unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()

    def read_status(self) -> dict[str, Any] | None:
        """The valid content of ``status.json``; None if the run never started, or if the file is damaged."""
        return status_file.read_status(self.path)

    @property
    def removed(self) -> bool:
        """Whether somebody has removed the directory since this process started the run."""
        return self.started and not self.config.exists()

    def require(self) -> None:
        """Raise :class:`RunFailed` if the directory was removed, so that nobody creates half of it again."""
        if self.removed:
            raise RunFailed(f"{self.path} was removed while the run was training")

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        return (self.read_status() or {}).get("status") == "done"

    def write_status(self, status: str, *, in_place_if_full: bool = False, **fields: Any) -> None:
        """Replace ``status.json``: ``status`` (running, done, failed, preempted, interrupted), identity, times, ``fields``.

        With ``in_place_if_full``, a disk without room for a second file is no reason to leave the old status: the file itself is
        overwritten.
        """
        self.require()
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        previous = self.read_status() or {}
        job = {name.lower(): os.environ[name] for name in JOB_VARIABLES if name in os.environ}
        content = {
            "status": status,
            "name": self.name,
            "key": self.key,
            "started_at": previous.get("started_at", now),
            "updated_at": now,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **({"job": job} if job else {}),
            **fields,
        }
        file = self.path / status_file.NAME
        try:
            write_json(file, content)
        except OSError as error:
            if not in_place_if_full or error.errno not in FULL:
                raise
            overwrite(file, json_text(content).encode())

    def write_config(self, text: str) -> None:
        """Start the run: write the resolved configuration unless the file already holds it."""
        try:
            same = read_bytes(self.config) == text.encode()
        except OSError:  # there is no file, or something else in its place
            same = False
        if not same:
            write_text(self.config, text)
        self.started = True

    @property
    def started_over(self) -> bool:
        """Whether the submission of this job has started the run over already, so that a requeued job resumes it."""
        submission = os.environ.get(SUBMISSION)
        if submission is None:
            return False
        try:
            return read_bytes(self.path / BEGUN) == submission.encode()
        except OSError:  # there is no file, or something else in its place
            return False

    def clear(self) -> None:
        """Remove the files of an earlier attempt, for a run that starts over (``resume=false``), and store the submission.

        The status goes first, then all checkpoints at once. A process that is killed meanwhile thus leaves a run that is not
        done, and that resumes with all of its checkpoints or starts over.
        """
        (self.path / status_file.NAME).unlink(missing_ok=True)
        CheckpointStore(self.checkpoints, self.key).clear()
        for pattern in ("figures/*.png", "metrics.*", "train.log", "config.yaml", "meta.json", "parent.json"):
            for file in self.path.glob(pattern):
                file.unlink()
        if SUBMISSION in os.environ:
            write_text(self.path / BEGUN, os.environ[SUBMISSION])

    def point_latest(self, outputs: Path) -> None:
        """Make ``outputs/latest`` a link to this run."""
        remove_leftovers(outputs, shared=True)
        temporary = temporary_path(outputs / "latest")
        try:
            temporary.symlink_to(os.path.relpath(self.path, outputs))
            os.replace(temporary, outputs / "latest")
        except OSError:  # no symbolic links here, or "latest" is a directory; the link is only a convenience
            with suppress(OSError):
                temporary.unlink()


def _lock(path: Path) -> FileLock:
    return FileLock(path / LOCK, timeout=LOCK_SECONDS)
