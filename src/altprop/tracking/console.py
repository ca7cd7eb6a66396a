"""The output of a run: progress and a table of epochs on a terminal and in a notebook, dated lines in a log file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich import get_console
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from altprop.tracking.base import RunInfo, Status, Tracker
from altprop.tracking.columns import COLUMNS, Column, columns_of, header, is_evaluation, row

REFRESH = 0.2
"""Seconds between updates of the progress."""
NOTEBOOK_WIDTH = 110
"""Characters per line in a notebook."""


class Console(Tracker):
    """Shows progress, a table with one row per evaluation, and at the end the test accuracy and the run directory.

    On a terminal, the progress bar stays below the table. In a notebook, one line below the table shows the progress. Elsewhere
    (in a SLURM log file) there is no progress, and at most one dated line per epoch.

    Args:
        console: Where to write; standard output by default.
    """

    inline = True

    def __init__(self, *, console: RichConsole | None = None) -> None:
        self.console = console if console is not None else get_console()
        self.notebook = self.console.is_jupyter
        if self.notebook:  # plain text in one output; rich would make an output of every line
            self.console = RichConsole(force_jupyter=False, force_terminal=False, width=NOTEBOOK_WIDTH)
        self.interactive = self.console.file.isatty() and self.console.is_terminal and not self.console.is_dumb_terminal
        self.run: RunInfo | None = None
        self._own: list[str] = []
        self._all_columns: tuple[Column, ...] = COLUMNS
        self._columns: list[Column] = []
        self._best = -math.inf
        self._line_epoch = -math.inf
        self._refreshed = 0.0
        self._last: dict[str, float] = {}
        self._bar: Progress | None = None
        self._shown = ""  # the progress in a notebook

    def start(self, run: RunInfo) -> None:
        """Print what is run, and show the progress bar on a terminal."""
        self.run = run
        self._own = list(run.config.get("metrics") or {})
        self._all_columns = columns_of(self._own)
        self._began = time.monotonic()
        epochs = f"{run.total_epochs} {'epoch' if run.total_epochs == 1 else 'epochs'}"
        self._print(f"{run.name}, seed {run.seed}: {epochs} of {run.steps_per_epoch} steps in {relative(run.directory)}")
        if run.resumed:
            self._print(f"Resumed at step {run.start_step}, epoch {run.start_step / run.steps_per_epoch:.4g}")
        if self.interactive:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("[cyan]{task.fields[values]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
                auto_refresh=False,  # no extra thread during training; progress() refreshes it
                transient=True,
            )
            total = run.total_epochs * run.steps_per_epoch
            self._task = self._bar.add_task(self._epoch(run.start_step), total=total, completed=run.start_step, values="")
            self._bar.start()

    def progress(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Move the bar, at most five times a second."""
        if (self._bar is None and not self.notebook) or time.monotonic() - self._refreshed < REFRESH:
            return
        self._refreshed = time.monotonic()
        text = " ".join(
            form.format(values[name])
            for name, form in (("train/loss", "loss {:.4g}"), ("time/images_per_second", "{:,.0f} images/s"))
            if name in values
        )
        if self._bar is None:
            self._show_line(f"{self._epoch(step)} {text}")
            return
        self._bar.update(self._task, completed=step, description=self._epoch(step), values=text)
        self._bar.refresh()

    def log(self, record: Mapping[str, float]) -> None:
        """Add a row to the table if ``record`` contains an evaluation."""
        self._last.update(record)
        if self.run is None or not is_evaluation(record):
            return
        values = {"time/elapsed": time.monotonic() - self._began, **record}
        self._show_line("")
        if not (self.interactive or self.notebook):
            if math.floor(record["epoch"]) > self._line_epoch:
                self._line_epoch = math.floor(record["epoch"])
                self._print(line(values, self.run.total_epochs, self._all_columns))
            return
        if not self._columns:
            self._columns = [column for column in self._all_columns if column.name in values]
            self.console.print(header(self._columns))
        score = record.get("validation/accuracy", record.get("test/accuracy", -math.inf))
        self.console.print(row(self._columns, values, best=score > self._best))
        self._best = max(self._best, score)

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Remove the progress bar, and print how the run ended, its test accuracy and its directory."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self.run is None:
            return
        self._show_line("")
        elapsed = timedelta(seconds=round(time.monotonic() - self._began))
        results = {**self._last, **summary}
        if status == "done":
            if "test/accuracy" in results:
                accuracy = Text(f"Test accuracy {results['test/accuracy']:.2f} %", style="bold")
                own = [f", {name} {results[f'test/{name}']:.5g}" for name in self._own if f"test/{name}" in results]
                self._print(accuracy, *own, selected_epoch(results), f" after {elapsed}")
        else:
            self._print(Text(status.capitalize(), style="bold red"), f" at step {results.get('step', self.run.start_step):.0f}")
        self._print(f"Run directory: {relative(self.run.directory)}")
        self.run = None

    def _epoch(self, step: int) -> str:
        assert self.run is not None
        epoch = min(max(1, math.ceil(step / self.run.steps_per_epoch)), self.run.total_epochs)
        return f"epoch {epoch}/{self.run.total_epochs}"

    def _show_line(self, text: str) -> None:
        """Replace the line that shows the progress in a notebook; an empty text removes it."""
        if self.notebook and (text or self._shown):
            self.console.file.write(f"\r{' ' * len(self._shown)}\r{text}")
            self.console.file.flush()
            self._shown = text

    def _print(self, *parts: str | Text) -> None:
        stamp = "" if self.interactive or self.notebook else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        self.console.print(Text.assemble(stamp, *parts), soft_wrap=True)


def line(values: Mapping[str, float], total_epochs: int, columns: Sequence[Column] = COLUMNS) -> str:
    """Return one evaluation as a line of a log file."""
    cells = [f"{column.title} {column.text(values[column.name])}" for column in columns[1:] if column.name in values]
    return f"epoch {values['epoch']:g}/{total_epochs}: " + ", ".join(cells)


def selected_epoch(results: Mapping[str, float]) -> str:
    """Return the test accuracy at the epoch that ``trainer.select_on`` selected; empty if that is the last epoch."""
    if "best/test/accuracy" not in results or results["best/step"] == results["step"]:
        return ""
    return f" ({results['best/test/accuracy']:.2f} % at the selected epoch {results['best/epoch']:g})"


def relative(path: Path) -> str:
    """Return ``path`` relative to the current directory if it is below it, else in full."""
    try:
        return os.fspath(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
