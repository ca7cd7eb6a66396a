"""What a person sees of a run: a progress bar and a table of epochs on a terminal, dated lines in a log file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich import get_console
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from altprop.tracking.base import RunInfo, Status, Tracker
from altprop.tracking.columns import COLUMNS, Column, header, is_evaluation, row

REFRESH = 0.2
"""Seconds between two drawings of the progress bar."""


class Console(Tracker):
    """Progress and a table with one row per evaluation, and at the end the test accuracy and where the run lies.

    On a terminal the bar stays below the table. Elsewhere (a SLURM log file) there is no bar and at most one dated line per
    epoch. ``console`` is where to write; the default is standard output.
    """

    inline = True

    def __init__(self, console: RichConsole | None = None) -> None:
        self.console = console if console is not None else get_console()
        self.interactive = self.console.file.isatty() and self.console.is_terminal and not self.console.is_dumb_terminal
        self.run: RunInfo | None = None
        self._columns: list[Column] = []
        self._best = -math.inf
        self._line_epoch = -math.inf
        self._drawn = 0.0
        self._last: dict[str, float] = {}
        self._bar: Progress | None = None

    def start(self, run: RunInfo) -> None:
        """Say what runs, and show the bar on a terminal."""
        self.run = run
        self._began = time.monotonic()
        self._say(
            f"{run.name}, seed {run.seed}: {run.total_epochs} epochs of {run.steps_per_epoch} steps in {shown(run.directory)}"
        )
        if run.resumed:
            self._say(f"Resumed at step {run.start_step}, epoch {run.start_step / run.steps_per_epoch:.4g}")
        if self.interactive:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("[cyan]{task.fields[values]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
                auto_refresh=False,  # no thread beside training: drawn from progress()
                transient=True,
            )
            total = run.total_epochs * run.steps_per_epoch
            self._task = self._bar.add_task(self._epoch(run.start_step), total=total, completed=run.start_step, values="")
            self._bar.start()

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Move the bar, at most five times a second."""
        if self._bar is None or time.monotonic() - self._drawn < REFRESH:
            return
        self._drawn = time.monotonic()
        shown_values = " ".join(
            text.format(values[name])
            for name, text in (("train/loss", "loss {:.4g}"), ("time/images_per_second", "{:,.0f} images/s"))
            if name in values
        )
        self._bar.update(self._task, completed=step, description=self._epoch(step), values=shown_values)
        self._bar.refresh()

    def log(self, record: Mapping[str, float]) -> None:
        """Add a row to the table if ``record`` holds an evaluation."""
        self._last.update(record)
        if self.run is None or not is_evaluation(record):
            return
        values = {"time/elapsed": time.monotonic() - self._began, **record}
        if not self.interactive:
            if math.floor(record["epoch"]) > self._line_epoch:
                self._line_epoch = math.floor(record["epoch"])
                self._say(line(values, self.run.total_epochs))
            return
        if not self._columns:
            self._columns = [column for column in COLUMNS if column.name in values]
            self.console.print(header(self._columns))
        score = record.get("validation/accuracy", record.get("test/accuracy", -math.inf))
        self.console.print(row(self._columns, values, best=score > self._best))
        self._best = max(self._best, score)

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Take the bar away; say how the run ended, its test accuracy and its directory."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self.run is None:
            return
        elapsed = timedelta(seconds=round(time.monotonic() - self._began))
        results = {**self._last, **summary}
        if status == "done":
            if "test/accuracy" in results:
                accuracy = Text(f"Test accuracy {results['test/accuracy']:.2f} %", style="bold")
                self._say(accuracy, selected(results), f" after {elapsed}")
        else:
            self._say(Text(status.capitalize(), style="bold red"), f" at step {results.get('step', self.run.start_step):.0f}")
        self._say(f"The run lies in {shown(self.run.directory)}")
        self.run = None

    def _epoch(self, step: int) -> str:
        assert self.run is not None
        epoch = min(max(1, math.ceil(step / self.run.steps_per_epoch)), self.run.total_epochs)
        return f"epoch {epoch}/{self.run.total_epochs}"

    def _say(self, *parts: str | Text) -> None:
        stamp = "" if self.interactive else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        self.console.print(Text.assemble(stamp, *parts), soft_wrap=True)


def line(values: Mapping[str, float], total_epochs: int) -> str:
    """One evaluation as one line of a log file."""
    cells = [f"{column.title} {column.text(values[column.name])}" for column in COLUMNS[1:] if column.name in values]
    return f"epoch {values['epoch']:g}/{total_epochs}: " + ", ".join(cells)


def selected(results: Mapping[str, float]) -> str:
    """What the epoch that the validation split (or ``trainer.select_on``) chose has on the test split, if it is not the last."""
    if "best/test/accuracy" not in results or results["best/step"] == results["step"]:
        return ""
    return f" ({results['best/test/accuracy']:.2f} % at the selected epoch {results['best/epoch']:g})"


def shown(path: Path) -> str:
    """``path`` from the current directory where it lies in it, else in full."""
    try:
        return os.fspath(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
