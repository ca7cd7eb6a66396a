"""The command ``status.py``: one line for each run of a sweep, and the verbs that steer a sweep."""

from __future__ import annotations

import glob
import io
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from altprop.commands import steering
from altprop.config.quoting import quoted, quoted_list
from altprop.files import write_text
from altprop.nn.metrics.names import RESERVED
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import arguments
from altprop.reporting.runs import run_directories
from altprop.sweeping.jobs import Manifest, SweepRun, adopt, manifests, status_of
from altprop.sweeping.outcome import STATES, job_of, outcome, settle
from altprop.sweeping.queue import Queue, ask
from altprop.tracking.parent_file import started_from
from altprop.training.locks import is_locked

WIDTH = 160
COLUMNS = ("#", "run", "state", "epoch", "accuracy", "metrics", "left", "elapsed", "node", "job", "pending", "from")
ALWAYS = ("#", "run", "state", "epoch", "accuracy")
"""Columns that are shown even if they are empty."""
LEFT_ALIGNED = ("run", "state", "metrics", "node", "job", "pending", "from")
ACTIONS: Mapping[str, Callable[[DictConfig, Manifest, Sequence[int]], None]] = {
    "cancel": steering.cancel,
    "retry": steering.retry,
    "logs": steering.logs,
}
"""What can be done with a sweep and the numbers of some of its runs."""
VERBS = ("show", *ACTIONS, "watch", "clean")


def status(config: DictConfig) -> None:
    """Do what ``config.action`` says with the sweep that ``config.folder`` or ``config.group`` names."""
    _check(config)
    outputs = Path(config.paths.outputs).absolute()
    if config.action == "clean":
        steering.clean(outputs, float(config.days), delete=bool(config.delete))
        return
    manifest = find(outputs, config.folder, config.group)
    if config.action in ACTIONS:
        ACTIONS[config.action](config, manifest, chosen(config.run, manifest))
    elif config.action == "watch":
        watch(config, outputs)
    else:
        show(config, manifest)


def _check(config: DictConfig) -> None:
    """Raise ConfigError for words that are not known. Types are checked before (:mod:`altprop.config.command_settings`)."""
    problems = []
    if config.only not in (None, *STATES):
        problems.append(Problem("only", str(config.only), " | ".join(STATES), "only=failed"))
    if config.action not in VERBS:
        problems.append(Problem("action", str(config.action), " | ".join(VERBS), "action=show"))
    if problems:
        raise ConfigError(problems)


def chosen(number: object, manifest: Manifest) -> list[int]:
    """The numbers that ``run=<number>`` or ``run=[<number>, …]`` names; of all runs if it is null. Raises ConfigError."""
    last = len(manifest.runs) - 1
    numbers = range(last + 1) if number is None else [number] if isinstance(number, (int, str)) else list(number)  # type: ignore[call-overload]
    for each in numbers:
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= last:
            raise ConfigError(
                [Problem("run", f"{each} is not a run of {manifest.folder}", f"a number from 0 to {last}", "run=0")]
            )
    return list(dict.fromkeys(numbers))


def show(config: DictConfig, manifest: Manifest) -> Counter[str]:
    """Print the table of the sweep; with ``config.table`` also write it and the report. Returns how many runs have each state."""
    queue = ask(run.job for run in manifest.runs)
    if config.table:
        settle(manifest.runs, queue)
    rows = [row_of(run, queue) for run in manifest.runs]
    notes = list(_notes(manifest, rows, queue))
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    print_rows(console, manifest, rows, config.only, notes)
    if config.table:
        text = io.StringIO()
        print_rows(Console(file=text, width=WIDTH), manifest, rows, None, notes)
        try:
            write_text(manifest.folder / "status.txt", text.getvalue())
        except OSError as error:
            raise RunFailed(f"{manifest.folder / 'status.txt'} was not written: {error.strerror}") from error
        if any(run.directory is not None for run in manifest.runs):
            write_report(manifest, Path(config.paths.outputs).absolute())
    return Counter(row["state"] for row in rows)


def watch(config: DictConfig, outputs: Path) -> None:
    """Print the table every ``config.every`` seconds until every run has ended, or Ctrl-C."""
    folder = config.folder or find(outputs, None, config.group).folder
    with steering.until_ctrl_c():
        while True:
            if sys.stdout.isatty():
                Console().clear()
            counts = show(config, find(outputs, folder) if Path(folder) != outputs else find(outputs))
            if not any(counts[state] for state in steering.UNFINISHED):
                return
            sys.stdout.flush()
            time.sleep(max(float(config.every), 0.1))


def find(outputs: Path, folder: str | Path | None = None, group: str | None = None) -> Manifest:
    """The sweep in ``folder``, or the newest of ``group``, or the newest of all; without any sweep, the runs below ``outputs``.

    Raises ConfigError if there is nothing.
    """
    if folder is not None:
        manifest = Manifest.read(Path(folder).absolute())
        if manifest is None:
            raise ConfigError([Problem("folder", f"{folder} holds no sweep", f"a folder below {outputs / '.sweeps'}")])
        return adopt(manifest)
    groups: dict[str, Manifest] = {}
    for manifest in manifests(outputs):
        if group in (None, manifest.group):
            return adopt(manifest)
        groups.setdefault(manifest.group, manifest)
    if group is None and (runs := list(_single_runs(outputs))):
        return Manifest(outputs, f"runs below {outputs}", "none", runs)
    allowed = f"groups of sweeps: {', '.join(sorted(groups))}" if groups else f"there are none below {outputs}"
    raise ConfigError([Problem("group", "no sweep was started yet" if group is None else f"{group} was never swept", allowed)])


def _single_runs(outputs: Path) -> list[SweepRun]:
    """The run directories below ``outputs`` as if they were those of a sweep."""
    runs = []
    for path in run_directories(outputs):
        job = job_of(status_of(path))
        log = path / "train.log"
        runs.append(SweepRun([str(path.relative_to(outputs))], [], str(path), 0, job, str(log) if log.exists() else None))
    return runs


def row_of(run: SweepRun, queue: Queue) -> dict[str, str]:
    """The row of one run."""
    status, found = run.status, outcome(run, queue)
    record = {**(status.get("last") or {}), **(status.get("best") or {})}
    accuracy = record.get("test/accuracy", record.get("validation/accuracy"))
    return {
        "run": " ".join(run.overrides),
        "state": found.state,
        "epoch": f"{status['epoch']:g}/{status['total_epochs']:g}" if "total_epochs" in status else "",
        "accuracy": "" if accuracy is None else f"{accuracy:.2f}",
        "metrics": _own_metrics(record, "test" if "test/accuracy" in record else "validation"),
        "left": _duration(float(status.get("eta_seconds") or 0.0)) if found.state == "running" and status else "",
        "elapsed": found.elapsed,
        "node": found.node,
        "job": run.job or "",
        "pending": found.pending,
        "from": "" if run.directory is None else started_from(Path(run.directory)),
        "reason": found.reason or (str(status.get("stopped_early") or "") if found.state == "done" else ""),
        "log": run.log or run.directory or "",
    }


def _own_metrics(record: Mapping[str, Any], split: str) -> str:
    """The run's own metrics on ``split``, such as ``top5 99.8``. Those of local heads have a longer name."""
    names = {key: key.removeprefix(f"{split}/") for key in record if key.startswith(f"{split}/")}
    return ", ".join(f"{name} {record[key]:.5g}" for key, name in names.items() if "/" not in name and name not in RESERVED)


def print_rows(
    console: Console, manifest: Manifest, rows: Sequence[Mapping[str, str]], only: str | None, notes: Sequence[str] = ()
) -> None:
    """The table, the counts, one line for each failure, and ``notes``."""
    shown = [(number, row) for number, row in enumerate(rows) if only in (None, row["state"])]
    common = set.intersection(*(set(row["run"].split()) for row in rows)) if len(rows) > 1 else set()
    title = _one_line(f"{manifest.group}   {' '.join(sorted(common))}")
    console.print(title, markup=False, highlight=False, soft_wrap=True, style="italic")
    table = Table(box=None, pad_edge=False)
    columns = [name for name in COLUMNS if name in ALWAYS or any(row[name] for _, row in shown)]
    for name in columns:
        table.add_column(name, no_wrap=name != "run", justify="left" if name in LEFT_ALIGNED else "right")
    own = [_one_line(" ".join(word for word in row["run"].split() if word not in common)) for _, row in shown]
    for name, (number, row) in zip(own, shown, strict=True):
        cells = {**row, "#": str(number), "run": name}
        table.add_row(*(Text(cells[column]) for column in columns))
    console.print(table)
    counts = Counter(row["state"] for row in rows)
    console.print(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]), highlight=False)
    for name, (_, row) in zip(own, shown, strict=True):
        if row["reason"]:
            line = f"{name}: {_one_line(row['reason'])} ({row['log']})"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _notes(manifest: Manifest, rows: Sequence[Mapping[str, str]], queue: Queue) -> list[str]:
    """What a reader of the table has to know about the whole sweep."""
    notes = [f"SLURM does not answer: {queue.complaint}"] if queue.complaint else []
    waiting = sum(row["state"] == "waiting" and not row["job"] for row in rows)
    if waiting and not (manifest.cluster == "local" and is_locked(manifest.folder)):
        notes.append(f"{waiting} of the waiting runs are not in any queue: the same command starts them")
    return notes


def write_report(manifest: Manifest, outputs: Path) -> None:
    """Let ``report.py`` write its tables over the sweep's runs into the sweep's folder. Raises :class:`RunFailed`."""
    command = [*arguments("report"), *report_arguments(manifest, outputs)]
    if subprocess.run(command).returncode:
        raise RunFailed(f"the report was not written; try: {shlex.join(command)}")


def report_arguments(manifest: Manifest, outputs: Path) -> list[str]:
    """The arguments of ``report.py``: the sweep's runs, by name and key, and the output folder."""
    directories = [Path(run.directory) for run in manifest.runs if run.directory is not None]
    runs = [glob.escape(str(path.relative_to(outputs))) for path in directories if path.is_relative_to(outputs)]
    return [f"runs={quoted_list(runs)}", f"to={quoted(str(manifest.folder))}", f"paths.outputs={quoted(str(outputs))}"]


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return "" if seconds <= 0 else f"{seconds:.0f} s" if minutes < 1 else f"{minutes // 60}:{minutes % 60:02d} h"
