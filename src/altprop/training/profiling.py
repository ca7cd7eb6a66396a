"""torch.profiler over a few steps, for ``debug=profile``."""

from __future__ import annotations

from pathlib import Path

import torch


class Profiler:
    """Traces ``steps`` steps after five of warm-up into ``profile/trace.json`` and ``profile/table.txt``; None: off."""

    WARM_UP = 5

    def __init__(self, steps: int | None, folder: Path) -> None:
        self.remaining = None if steps is None else steps + self.WARM_UP
        self.steps = steps
        self.folder = folder
        self.profile: torch.profiler.profile | None = None

    def step(self) -> None:
        """Called after every training step."""
        if self.remaining is None:
            return
        self.remaining -= 1
        if self.remaining == self.steps:
            self.profile = torch.profiler.profile(acc_events=True)  # without it, PyTorch 2.11 warns in every case
            self.profile.start()
        elif self.remaining == 0:
            self._write()
            self.remaining = None

    def _write(self) -> None:
        if self.profile is None:
            return
        self.profile.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profile.export_chrome_trace(str(self.folder / "trace.json"))
        table = self.profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        (self.folder / "table.txt").write_text(table)
