"""Atomic file writes: readers see either the old or the new content, never half of it. Imports nothing from altprop."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import platform
import re
import shutil
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that say that a file does not exist, or that there can be none of this name."""
_numbers = itertools.count()
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-\d+\.tmp", re.DOTALL)


class NotRegular(OSError):  # noqa: N818 - names what the file is
    """The path is a pipe, a device, a socket or a folder, reading which could wait forever or never end."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Call ``write`` on a temporary file next to ``path``, flush it to the disk, and rename it to ``path``.

    Raises whatever ``write`` raises. If the disk is full, that is always the operating system's OSError, even if ``write`` hides
    it behind an error of its own. After an error, ``path`` is unchanged and no file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    raw: _RecordingFile | None = None
    try:
        raw = _RecordingFile(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
        with io.BufferedWriter(raw) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if raw is not None and raw.error is not None and isinstance(error, Exception):
            raise OSError(raw.error.errno, raw.error.strerror, str(path)) from None
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None  # not the name of the temporary file
        raise


class _RecordingFile(io.FileIO):
    """A file that remembers the error of a failed write, because some writers replace it by another one."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def temporary_path(path: Path) -> Path:
    """A new hidden path next to ``path`` that names this process, so that it can be removed if the process is killed."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_numbers)}.tmp")


def remove_leftovers(*folders: Path, shared: bool = False) -> None:
    """Remove temporary files and folders that killed processes have left in ``folders``; never those of a living process.

    Those of other machines are removed as well, unless the folders are ``shared`` with processes there.
    """
    for folder in folders:
        for path in [*folder.glob(".*.tmp"), *folder.glob(".*.link")]:  # *.link: of earlier versions
            owner = _TEMPORARY.fullmatch(path.name)
            foreign = owner is None or owner[1] != _HOST
            if (foreign and not shared) or (owner is not None and not foreign and not _is_alive(int(owner[2]))):
                with suppress(OSError):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def link_atomically(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, atomically, or a copy if the file system has no hard links."""
    with suppress(OSError):
        if target.samefile(source):
            return
    temporary = temporary_path(target)
    try:
        os.link(source, temporary)
    except OSError:
        write_bytes(target, source.read_bytes())
        return
    try:
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink()
        raise OSError(error.errno, error.strerror, str(target)) from None  # not the name of the temporary file


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""

    def write(stream: IO[bytes]) -> None:
        stream.write(content)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """``value`` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def overwrite(path: Path, content: bytes) -> None:
    """Write ``content`` over the existing file ``path``, not atomically. If that raises OSError, the file holds what it held."""
    before = read_bytes(path)
    with path.open("r+b", buffering=0) as stream:
        try:
            _write_all(stream, content)
        except OSError:
            stream.seek(0)
            _write_all(stream, before)
            raise


def _write_all(stream: io.FileIO, content: bytes) -> None:
    """Write ``content`` from the position of ``stream``, which becomes the end of the file, and flush it to the disk."""
    end = stream.tell() + len(content)
    while content:
        content = content[stream.write(content) :]
    stream.truncate(end)
    os.fsync(stream.fileno())


def require_regular(path: Path) -> None:
    """Raise :class:`NotRegular` if ``path`` is, or links to, anything but a regular file; FileNotFoundError if it is missing."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFSOCK: "a socket"}
        raise NotRegular(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")


def append_line(path: Path, line: str) -> None:
    """Append ``line`` to the regular file ``path``, or create it. Raises :class:`NotRegular` for a pipe, a device or a folder."""
    with suppress(FileNotFoundError):
        require_regular(path)
    with path.open("a") as stream:
        stream.write(f"{line}\n")


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file. Raises :class:`NotRegular` or another OSError."""
    require_regular(path)
    return path.read_bytes()


def require_encodable(value: Any) -> None:
    """Raise UnicodeEncodeError if a text in the plain ``value`` holds half of a surrogate pair (``"\\ud800"``).

    JSON and YAML can contain it, but no file and no terminal takes it.
    """
    json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()


def read_json(path: Path) -> Any:
    """Return the JSON in ``path``, or None if the file is missing, damaged or not a regular file.

    A file with text that could not be written again counts as damaged (:func:`require_encodable`).
    """
    try:
        value = json.loads(read_bytes(path))
        require_encodable(value)
        return value
    except (NotRegular, RecursionError, ValueError):
        return None
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise
