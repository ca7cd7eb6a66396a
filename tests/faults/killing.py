"""A training process that is killed just before its n-th file-system call."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # every optimizer imports it, which takes seconds; the fork server does it once for all

from altprop import files
from altprop.training.run import train
from tests.training.fixtures import make_parts

SETTINGS: dict[str, Any] = {"duration": "3ep", "keep_epochs": [1, 2], "save_initial": True, "keep": 2}
CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.truncate")


class Calls:
    """Counts the calls that change files below ``folder``, and kills this process before number ``at``.

    Python's audit events announce most of them; flushes and writes are wrapped.
    """

    def __init__(self, folder: Path, at: int | None) -> None:
        self.folder = str(folder)
        self.at = at
        self.seen: list[str] = []
        sys.addaudithook(self.hear)
        flush, write = os.fsync, files._RecordingFile.write

        def counted_flush(descriptor: int) -> None:
            self.count("flush")
            flush(descriptor)

        def counted_write(file: Any, data: Any, /) -> int:
            self.count("write")
            return write(file, data)

        os.fsync = counted_flush
        files._RecordingFile.write = counted_write  # type: ignore[method-assign]

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writing and str(path).startswith(self.folder):
                self.count(f"open {Path(path).name}")
        elif event in CHANGES and any(str(each).startswith(self.folder) for each in arguments):
            self.count(f"{event} {' '.join(Path(str(each)).name for each in arguments[:2])}")

    def count(self, call: str) -> None:
        if self.at == len(self.seen):
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(call)


def train_until(outputs: Path, at: int | None, report: Path | None, resume: bool) -> None:
    """Train the run of :data:`SETTINGS`; ``report`` receives the calls, one per line, if the process survives."""
    torch.set_num_threads(1)
    calls = Calls(outputs, at)
    train(make_parts(outputs, resume=resume, **SETTINGS))
    if report is not None:
        report.write_text("\n".join(calls.seen))
