"""A tracker that lets a run wait in the middle, so that what a test does to the run does not depend on speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from altprop.tracking.base import RunInfo, Tracker

GO = "continue"
"""The file in the run's directory for which it waits."""


class Pause(Tracker):
    """Waits at the second record of a run that starts, until the file :data:`GO` exists. A run that resumes does not wait."""

    inline = True

    def start(self, run: RunInfo) -> None:
        self.file: Path | None = None if run.resumed else run.directory / GO
        self.records = 0

    def log(self, record: Mapping[str, float]) -> None:
        self.records += 1
        while self.records == 2 and self.file is not None and not self.file.exists():
            time.sleep(0.02)
