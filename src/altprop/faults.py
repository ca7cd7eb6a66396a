"""Faults of the machine, such as a full disk, described in one line. This module imports nothing from altprop."""

from __future__ import annotations

import errno
from collections.abc import Iterator

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of writing that libraries such as torch hide behind an error of their own."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk without room for another file."""
HINTS = {
    errno.ENOSPC: "free some space (or files: df -i) and repeat the command",
    errno.EDQUOT: "free some space and repeat the command",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and repeat the command",
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "choose a folder that you may use",
    errno.EPERM: "choose a folder that you may use",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOENT: "was it removed?",
    errno.EISDIR: "altprop writes a file of this name: move the folder away",
    errno.ELOOP: "altprop writes a file of this name: remove the link",
}
MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "cannot allocate memory", "failed to map segment")
"""What errors say that mean a lack of memory, those of torch and of the dynamic linker among them."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, then what caused it, then what caused that, including causes that a library has hidden."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the host or a GPU has run out of memory."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"  # of torch, which is not imported here
        or (
            isinstance(error, (RuntimeError, ImportError, OSError))
            and any(text in str(error).lower() for text in MEMORY_MESSAGES)
        )
    )


def system_error(error: BaseException) -> OSError | None:
    """The error of the operating system that ``error`` is, or that a library has hidden behind it; None if there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return next((each for each in chain(error) if isinstance(each, OSError) and each.errno in DISK), None)


def describe(error: BaseException, path: object = None) -> str | None:
    """One line about a fault of the machine: what happened, where, and what to do. None if ``error`` is something else.

    Args:
        error: The exception to describe.
        path: The folder that was in use, named if the exception names no file.
    """
    shortage = next(filter(is_out_of_memory, chain(error)), None)
    if shortage is not None:
        if type(shortage).__name__ == "OutOfMemoryError" or isinstance(shortage, RuntimeError):
            return "out of memory; lower dataset.batch_size, or split each mini-batch with trainer.accumulate=2"
        return "out of host memory; lower dataset.batch_size or dataset.workers"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return "a data loader worker was killed, most likely for its memory; lower dataset.workers or dataset.batch_size"
    fault = system_error(error)
    if fault is None:
        return None
    where = fault.filename if fault.filename is not None else path
    parts = [fault.strerror or type(fault).__name__, "" if where is None else f": {where}"]
    hint = HINTS.get(fault.errno or 0)
    return "".join(parts) + (f"; {hint}" if hint else "")
