"""The command ``status.py``: one line for each run of a sweep, from its ``status.json`` and from SLURM."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from altprop.files import write_text
from altprop.nn.metrics.names import RESERVED
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.program import arguments
from altprop.sweeping.jobs import Manifest, SweepRun, manifests
from altprop.sweeping.outcome import settle

STATES = ("done", "running", "waiting", "preempted", "interrupted", "failed")
WIDTH = 160


def show(config: DictConfig) -> None:
    """Print the table of the sweep that ``config.folder`` or ``config.group`` names; with ``config.table`` also write it."""
    if config.only not in (None, *STATES):
        raise ConfigError([Problem("only", str(config.only), " | ".join(STATES), "only=failed")])
    manifest = find(Path(config.paths.outputs).absolute(), config.folder, config.group)
    states = settle(manifest.runs)
    rows = [row_of(run, states) for run in manifest.runs]
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    print_rows(console, manifest, rows, config.only)
    if config.table:
        with (manifest.folder / ".status.txt").open("w") as stream:
            print_rows(Console(file=stream, width=WIDTH), manifest, rows, None)
        write_text(manifest.folder / "status.txt", (manifest.folder / ".status.txt").read_text())
        (manifest.folder / ".status.txt").unlink()
        if any(run.directory is not None for run in manifest.runs):
            write_report(manifest, Path(config.paths.outputs).absolute())


def find(outputs: Path, folder: str | None = None, group: str | None = None) -> Manifest:
    """The sweep in ``folder``, or the newest of ``group``, or the newest of all. Raises ConfigError if there is none."""
    if folder is not None:
        manifest = Manifest.read(Path(folder).absolute())
        if manifest is None:
            raise ConfigError([Problem("folder", f"{folder} holds no sweep", f"a folder below {outputs / '.sweeps'}")])
        return manifest
    groups: dict[str, Manifest] = {}
    for manifest in manifests(outputs):
        if group in (None, manifest.group):
            return manifest
        groups.setdefault(manifest.group, manifest)
    allowed = f"groups of sweeps: {', '.join(sorted(groups))}" if groups else f"there are none below {outputs}"
    raise ConfigError([Problem("group", "no sweep was started yet" if group is None else f"{group} was never swept", allowed)])


def row_of(run: SweepRun, states: Mapping[str, str]) -> dict[str, str]:
    """The row of one run."""
    status = run.status
    state = str(status.get("status", "waiting"))
    slurm = states.get(run.job or "", "")
    if state in ("preempted", "interrupted", "failed") and slurm == "PENDING":
        state = "waiting"
    if not status and not slurm and run.last_words:  # refused, so it has no directory
        state, status = "failed", {"error": run.last_words}
    record = {**(status.get("last") or {}), **(status.get("best") or {})}
    accuracy = record.get("test/accuracy", record.get("validation/accuracy"))
    return {
        "run": " ".join(run.overrides),
        "state": state,
        "epoch": f"{status['epoch']:g}/{status['total_epochs']:g}" if "total_epochs" in status else "",
        "accuracy": "" if accuracy is None else f"{accuracy:.2f}",
        "metrics": _own_metrics(record, "test" if "test/accuracy" in record else "validation"),
        "left": _duration(float(status.get("eta_seconds") or 0.0)) if state == "running" else "",
        "job": run.job or "",
        "reason": _reason(state, status),
        "log": run.log or run.directory or "",
    }


def _own_metrics(record: Mapping[str, Any], split: str) -> str:
    """The run's own metrics on ``split``, such as ``top5 99.8``. Those of local heads have a longer name."""
    names = {key: key.removeprefix(f"{split}/") for key in record if key.startswith(f"{split}/")}
    return ", ".join(f"{name} {record[key]:.5g}" for key, name in names.items() if "/" not in name and name not in RESERVED)


def _reason(state: str, status: Mapping[str, Any]) -> str:
    """Why the run is in its state: the error, or early stopping."""
    if state in ("failed", "interrupted"):
        return str(status.get("error") or "")
    return str(status.get("stopped_early") or "") if state == "done" else ""


def print_rows(console: Console, manifest: Manifest, rows: Sequence[Mapping[str, str]], only: str | None) -> None:
    """The table, the counts, and one line for each failure."""
    shown = [row for row in rows if only in (None, row["state"])]
    common = set.intersection(*(set(row["run"].split()) for row in rows)) if len(rows) > 1 else set()
    table = Table(title=f"{manifest.group}   {' '.join(sorted(common))}", title_justify="left", box=None, pad_edge=False)
    columns = ["state", "epoch", "accuracy", *(["metrics"] if any(row["metrics"] for row in rows) else []), "left", "job"]
    for column in ("run", *columns):
        table.add_column(column, no_wrap=column != "run", justify="right" if column in ("epoch", "accuracy", "left") else "left")
    own = [" ".join(word for word in row["run"].split() if word not in common) for row in shown]
    for name, row in zip(own, shown, strict=True):
        table.add_row(name, *(row[name] for name in columns))
    console.print(table, markup=False)
    counts = Counter(row["state"] for row in rows)
    console.print(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]), highlight=False)
    for name, row in zip(own, shown, strict=True):
        if row["reason"]:
            line = f"{name}: {row['reason']} ({row['log']})"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def write_report(manifest: Manifest, outputs: Path) -> None:
    """Let ``report.py`` write its tables over the sweep's runs into the sweep's folder. Raises :class:`RunFailed`."""
    command = [*arguments("report"), *report_arguments(manifest, outputs)]
    if subprocess.run(command).returncode:
        raise RunFailed(f"the report was not written; try: {shlex.join(command)}")


def report_arguments(manifest: Manifest, outputs: Path) -> list[str]:
    """The arguments of ``report.py``: the sweep's runs, by name and key, and the output folder."""
    runs = [str(Path(run.directory).relative_to(outputs)) for run in manifest.runs if run.directory is not None]
    return [f"runs=[{','.join(runs)}]", f"to={manifest.folder}", f"paths.outputs={outputs}"]


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{seconds:.0f} s" if minutes < 1 else f"{minutes // 60}:{minutes % 60:02d} h"
