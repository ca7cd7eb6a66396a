"""``report.py``: from its small configuration to tables and a page over many runs."""

from __future__ import annotations

import fnmatch
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from altprop.config.key import run_key
from altprop.files import write_text
from altprop.problems import ConfigError, Problem, nearest
from altprop.reporting.collect import WHICH, Row, collect
from altprop.reporting.html_page import can_draw, html_page
from altprop.reporting.runs import Run, read_runs
from altprop.reporting.tables.milestones import csv_milestones, milestones
from altprop.reporting.tables.render import (
    csv_table,
    latex,
    latex_comparisons,
    latex_milestones,
    markdown,
    markdown_comparisons,
    markdown_milestones,
    print_comparisons,
    print_milestones,
    print_table,
    summary,
    troubles,
)
from altprop.reporting.tables.side_by_side import Comparison, comparisons, csv_comparisons, not_compared

FORMATS = {"markdown": "report.md", "csv": "report.csv", "latex": "report.tex", "html": "report.html"}
WIDTH = 180
"""Of the table where the output is no terminal."""


def report(config: DictConfig) -> None:
    """Print the table of the runs that ``config`` names and write its other forms. Raises ConfigError."""
    given = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    formats = [given["formats"]] if isinstance(given["formats"], str) else list(given["formats"] or [])
    if problems := list(_problems(given, formats)):
        raise ConfigError(problems)
    outputs = Path(given["paths"]["outputs"]).absolute()
    all_runs, unreadable = read_runs(outputs)
    runs = chosen(all_runs, given["runs"], given["group"], outputs)
    rows = collect(runs, group_function(all_runs), given["metric"], given["compare"])
    if not any(row.last for row in rows) and given["metric"] is not None:
        known = sorted({name for run in runs for record in run.records for name in record if "/" in name})
        if known and given["metric"] not in known:
            raise ConfigError(
                [Problem("metric", f"no run recorded {given['metric']!r}", *_like(given["metric"], known, "metric"))]
            )
    folder = Path(given["to"]).absolute()
    _make_folder(folder)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    lines = [*troubles(rows, unreadable, outputs), *not_compared(rows, all_runs)]
    print_table(rows, console)
    for line in [summary(rows, unreadable), *lines]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    reached = milestones(rows)
    print_milestones(reached, console)
    compared = comparisons(rows, all_runs)
    print_comparisons(compared, console)
    figures = _figures(rows, compared, folder / "figures") if given["figures"] else {}
    contents: dict[str, Callable[[], str]] = {
        "markdown": lambda: markdown(rows, lines) + markdown_milestones(reached) + markdown_comparisons(compared),
        "csv": lambda: csv_table(rows),
        "latex": lambda: latex(rows, lines) + latex_milestones(reached) + latex_comparisons(compared),
        "html": lambda: html_page(rows, summary(rows, unreadable), lines, compared, reached, figures),
    }
    files = {FORMATS[name]: contents[name] for name in formats}
    if "csv" in formats and compared:
        files["side_by_side.csv"] = lambda: csv_comparisons(compared)
    if "csv" in formats and reached:
        files["milestones.csv"] = lambda: csv_milestones(reached)
    for name, content in files.items():
        write_text(folder / name, content())
        console.print(f"written: {folder / name}", markup=False, highlight=False, soft_wrap=True)
    if figures:
        console.print(f"drawn: {len(figures)} figures, {folder / 'figures'}", markup=False, highlight=False, soft_wrap=True)


def _make_folder(folder: Path) -> None:
    """Raises ConfigError where no file can be written into ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{folder} cannot be written to ({error.strerror})"
        raise ConfigError([Problem("to", reason, "a folder that can be", "to=report")]) from error


def _figures(rows: Sequence[Row], compared: Sequence[Comparison], folder: Path) -> dict[str, Path]:
    from altprop.reporting.figures.of_runs import draw  # matplotlib and torch are wanted for this alone

    return draw(rows, compared, folder)


def chosen(runs: Sequence[Run], patterns: str | Sequence[str], group: str | None, outputs: Path) -> list[Run]:
    """The runs whose name or ``<name>/<key>`` matches one of ``patterns`` (``ftprop/*``) and whose group matches ``group``."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    if not wanted:
        raise ConfigError([Problem("runs", "is an empty list", "names of runs, or '*' for all", "runs='*'")])
    named = [run for run in runs if any(_matches(run, pattern) for pattern in wanted)]
    names = sorted({run.name for run in runs})
    if not names:
        raise ConfigError(
            [Problem("paths.outputs", f"there is no run below {outputs}", "a folder that train.py wrote runs into")]
        )
    if not named:
        raise ConfigError([Problem("runs", f"{','.join(wanted)!r} matches no run", *_like(wanted[0], names, "runs"))])
    if group is None:
        return named
    found = [run for run in named if fnmatch.fnmatchcase(_group(run), group)]
    if not found:
        groups = sorted({_group(run) for run in named})
        raise ConfigError([Problem("group", f"{group!r} matches no run's group", *_like(group, groups, "group"))])
    return found


def group_function(runs: Sequence[Run]) -> Callable[[Run], str]:
    """Which runs differ in nothing but the seed: the key of the configuration without it.

    A run that starts from another one names that run's directory, which holds that run's key and hence the seed; there, the other
    run's own group takes the key's place.
    """
    configs = {run.key: run.config for run in runs}
    groups: dict[str, str] = {}

    def group_of(key: str) -> str:
        if key not in groups:
            groups[key] = key  # a run cannot start from itself; a folder edited by hand must not hang the report
            groups[key] = run_key(replaced({**configs[key], "seed": None}))
        return groups[key]

    def replaced(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: replaced(child) for name, child in value.items()}
        if isinstance(value, (list, tuple)):
            return [replaced(child) for child in value]
        if isinstance(value, str) and "/" in value:
            return re.sub(r"(?<=/)[0-9a-f]{12}(?=/|$)", lambda key: group_of(key[0]) if key[0] in configs else key[0], value)
        return value

    return lambda run: group_of(run.key)


def _matches(run: Run, pattern: str) -> bool:
    return fnmatch.fnmatchcase(run.name, pattern) or fnmatch.fnmatchcase(f"{run.name}/{run.key}", pattern)


def _group(run: Run) -> str:
    return str(run.config.get("group") or run.name)


def _problems(given: Mapping[str, Any], formats: Sequence[Any]) -> list[Problem]:
    problems = []
    if given["compare"] not in WHICH:
        problems.append(Problem("compare", f"is {given['compare']!r}", f"must be {' or '.join(WHICH)}", "compare=last"))
    if not isinstance(given["to"], str):
        problems.append(Problem("to", f"is {given['to']!r}", "must be a folder", "to=report"))
    if not isinstance(given["figures"], bool):
        problems.append(Problem("figures", f"is {given['figures']!r}", "must be true or false", "figures=true"))
    for name in formats:
        if name not in FORMATS:
            problems.append(Problem("formats", f"{name!r} is none", f"a list of {', '.join(FORMATS)}", "formats=[markdown,html]"))
    if "html" in formats and not can_draw():
        problems.append(Problem("formats", "html needs plotly", "pip install -e '.[report]'", "formats=[markdown,csv,latex]"))
    return problems


def _like(given: str, known: Sequence[str], key: str) -> tuple[str, str]:
    """What is allowed and what to try, for a word that is not among the ``known`` ones."""
    close = nearest(given, known)
    listed = ", ".join(known[:8]) + (f", … {len(known) - 8} more" if len(known) > 8 else "")
    return f"there are: {listed}", f"{key}={close or known[0]}"
