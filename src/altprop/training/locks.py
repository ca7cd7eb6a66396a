"""Who is training a run: its lock, a heartbeat for machines that cannot see the lock, and which submission started it over.

Imports no torch, because sweeps and ``status.py`` look at locks.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"
LOCK_SECONDS = 2.0
"""How long a trainer waits for the lock, which commands that look at a run hold for an instant."""
LOCKED = 75
"""Exit code of a run that another process is training (``EX_TEMPFAIL``)."""
HEARTBEAT_SECONDS = 30.0
"""How often a trainer touches its lock file, for machines that cannot see the lock itself."""
SUBMISSION = "ALTPROP_SUBMISSION"
"""The environment variable that names the submission that a job belongs to; it is the same after each requeue."""
BEGUN = ".submission"
"""The file with the submission that last started the run over."""


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the run in ``path``, which need not exist. Writes nothing.

    Another machine's lock is only visible if the file system shares locks; see :func:`last_sign`.
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # this file system has no locks
        return False
    finally:
        os.close(descriptor)
    return False


def last_sign(path: Path) -> float | None:
    """When the trainer of the run in ``path`` last gave a sign of life, in seconds since the epoch; None if it never did."""
    times = []
    for name in (LOCK, "status.json"):
        with suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return max(times, default=None)


@contextmanager
def heartbeat(lock: Path) -> Iterator[None]:
    """Touch the file ``lock`` every :data:`HEARTBEAT_SECONDS` in the background."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(lock)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    try:
        yield
    finally:
        ended.set()
