"""The command ``report.py``: tables, figures and an HTML page from many runs."""

from __future__ import annotations

import fnmatch
import itertools
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
from altprop.reporting.comparisons import Comparison, comparisons, excluded
from altprop.reporting.html.page import has_plotly, html_page
from altprop.reporting.milestones import milestones
from altprop.reporting.rows import Row, collect_rows
from altprop.reporting.runs import Run, read_runs
from altprop.reporting.searches import Search, searches
from altprop.reporting.tables.build import comparison_table, milestone_tables, results_table, search_tables, terminal_tables
from altprop.reporting.tables.columns import COLUMNS, PUBLISHED
from altprop.reporting.tables.notes import messages_about_runs, mixed_rows, notes, summary
from altprop.reporting.tables.render import csv_text, latex, markdown, print_table
from altprop.reporting.tables.table import Table

FORMATS = {"markdown": "report.md", "csv": "report.csv", "latex": "report.tex", "html": "report.html"}
"""The file that each format is written to."""
DEBUG = "debug/"
"""Start of the names of runs with ``debug=…``, which report nothing but that the code works."""
READABLE = "a run's files as train.py wrote them; restore them, or move the run away"
"""What the files of a run may be, for messages."""
WIDTH = 180
"""Width of the printed tables, in characters, if the output is not a terminal."""


def report(config: DictConfig) -> None:
    """Print the tables of the runs that ``config`` names, and write them in its formats. Raises ConfigError."""
    settings = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    formats = chosen_formats(settings["formats"])
    if problems := list(_problems(settings, formats)):
        raise ConfigError(problems)
    outputs, folder = Path(settings["paths"]["outputs"]).absolute(), Path(settings["to"]).absolute()
    all_runs, unreadable = read_runs(outputs)
    if unreadable and not all_runs:
        raise ConfigError(
            [Problem("paths.outputs", f"{each.path} is no readable run ({each.reason})", READABLE) for each in unreadable]
        )
    runs = select_runs(all_runs, settings["runs"], settings["group"], outputs)
    rows = collect_rows(runs, group_function(all_runs), settings["metric"], settings["compare"])
    _check_metric(settings["metric"], rows, runs)
    _make_folder(folder)

    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    totals = summary(rows, unreadable)
    columns = settings["columns"]
    messages = [*mixed_rows(rows), *messages_about_runs(rows, unreadable, outputs), *excluded(rows, all_runs)]
    searched = searches(rows, all_runs)
    in_searches = {id(row) for search in searched for row in itertools.chain(search.rows, *search.trials)}
    reached, compared = milestones(rows), comparisons([row for row in rows if id(row) not in in_searches], all_runs)
    search_part, milestone_part = search_tables(searched), milestone_tables(reached)
    comparison_part = [comparison_table(each) for each in compared]
    _print_tables(
        [results_table(rows, columns)] if columns else terminal_tables(rows),
        [totals, *messages],
        [*search_part, *milestone_part, *comparison_part],
        console,
    )
    figures = _figures(rows, compared, searched, folder / "figures") if settings["figures"] else {}
    complete = results_table(rows, columns, notes=notes(rows), messages=messages)
    needs = r"needs \usepackage{booktabs}"
    published = results_table(rows, columns or PUBLISHED, notes=notes(rows), messages=[*messages, needs])
    contents: dict[str, Callable[[], str]] = {
        "markdown": lambda: markdown([*search_part, complete, *milestone_part, *comparison_part]),
        "csv": lambda: csv_text([complete]),
        "latex": lambda: latex([published, *search_part, *milestone_part, *comparison_part]),
        "html": lambda: html_page(rows, totals, messages, compared, reached, figures, columns, searched),
    }
    files = {FORMATS[name]: contents[name] for name in formats}
    if "csv" in formats and comparison_part:
        files["side_by_side.csv"] = lambda: csv_text(comparison_part)
    if "csv" in formats and search_part:
        files["searches.csv"] = lambda: csv_text(search_part)
    if "csv" in formats and milestone_part:
        files["milestones.csv"] = lambda: csv_text(milestone_part)
    for name, content in files.items():
        write_text(folder / name, content())
        _print_line(f"written: {folder / name}", console)
    if settings["formats"] == "all" and "html" not in formats:
        _print_line("left out: report.html, which needs plotly (pip install -e '.[report]')", console)
    if figures:
        _print_line(f"drawn: {len(figures)} figures, {folder / 'figures'}", console)


def chosen_formats(formats: Any) -> list[Any]:
    """The names of the formats to write. ``all`` stands for every one that can be written: html needs plotly."""
    if formats == "all":
        return [name for name in FORMATS if name != "html" or has_plotly()]
    return [formats] if isinstance(formats, str) else list(formats or [])


def select_runs(runs: Sequence[Run], patterns: str | Sequence[str], group: str | None, outputs: Path) -> list[Run]:
    """The runs whose name or ``<name>/<key>`` matches one of ``patterns`` (``ftprop/*``) and whose group matches ``group``.

    Runs of ``debug=…`` are left out if there are others, unless ``group`` or a pattern (``debug/*``) asks for them. ``group``
    None matches every group. ``outputs`` is the folder of the runs, for messages. Raises ConfigError if no run matches.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ConfigError([Problem("runs", "is an empty list", "names of runs, or '*' for all", "runs='*'")])
    if not runs:
        raise ConfigError(
            [Problem("paths.outputs", f"there is no run below {outputs}", "a folder that train.py wrote runs into")]
        )
    named = [run for run in runs if any(_matches(run, pattern) for pattern in patterns)]
    if group is None and not any(pattern.startswith(DEBUG) for pattern in patterns):
        named = [run for run in named if not run.name.startswith(DEBUG)] or named
    if not named:
        names = sorted({run.name for run in runs})
        raise ConfigError([Problem("runs", f"{','.join(patterns)!r} matches no run", *_suggestions(patterns[0], names, "runs"))])
    if group is None:
        return named
    members = [run for run in named if fnmatch.fnmatchcase(_group(run), group)]
    if not members:
        groups = sorted({_group(run) for run in named})
        raise ConfigError([Problem("group", f"{group!r} matches no run's group", *_suggestions(group, groups, "group"))])
    return members


def group_function(runs: Sequence[Run]) -> Callable[[Run], str]:
    """A function that returns the same string for runs that differ only in their seed: the key of the configuration without it.

    A run that starts from another run names that run's directory, which contains its key and therefore depends on its seed. In
    the configuration, such a key is replaced by the other run's own group.
    """
    configs = {run.key: run.config for run in runs}
    groups: dict[str, str] = {}

    def group_of(key: str) -> str:
        if key not in groups:
            groups[key] = key  # so that a folder edited by hand, in which runs start from each other, does not hang the report
            groups[key] = run_key(with_groups({**configs[key], "seed": None}))
        return groups[key]

    def with_groups(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: with_groups(child) for name, child in value.items()}
        if isinstance(value, (list, tuple)):
            return [with_groups(child) for child in value]
        if isinstance(value, str) and "/" in value:
            return re.sub(r"(?<=/)[0-9a-f]{12}(?=/|$)", lambda key: group_of(key[0]) if key[0] in configs else key[0], value)
        return value

    return lambda run: group_of(run.key)


def _matches(run: Run, pattern: str) -> bool:
    return fnmatch.fnmatchcase(run.name, pattern) or fnmatch.fnmatchcase(f"{run.name}/{run.key}", pattern)


def _group(run: Run) -> str:
    return str(run.config.get("group") or run.name)


def _problems(settings: Mapping[str, Any], formats: Sequence[Any]) -> list[Problem]:
    """The problems of values that have the right type (:class:`altprop.config.command_settings.ReportSettings`)."""
    problems = []
    columns = settings["columns"]
    known = [column.name for column in COLUMNS]
    if columns is not None and not columns:
        problems.append(
            Problem("columns", f"is {columns!r}", f"must be a list of {', '.join(known)}, or null", "columns=[experiment,last]")
        )
    for name in columns or ():
        if name not in known:
            fix = f"columns=[{','.join(nearest(str(each), known) or 'last' for each in columns)}]"
            problems.append(Problem("columns", f"there is no column {name!r}", f"there are {', '.join(known)}", fix))
    for name in formats:
        if name not in FORMATS:
            allowed = f"must be all, or a list of {', '.join(FORMATS)}"
            problems.append(Problem("formats", f"{name!r} is not a format", allowed, "formats=[markdown,html]"))
    if "html" in formats and not has_plotly():
        problems.append(Problem("formats", "html needs plotly", "pip install -e '.[report]'", "formats=[markdown,csv,latex]"))
    return problems


def _check_metric(metric: str | None, rows: Sequence[Row], runs: Sequence[Run]) -> None:
    """Raise ConfigError if no run recorded ``metric``."""
    if metric is None or any(row.last for row in rows):
        return
    known = sorted({name for run in runs for record in run.records for name in record if "/" in name})
    if known and metric not in known:
        raise ConfigError([Problem("metric", f"no run recorded {metric!r}", *_suggestions(metric, known, "metric"))])


def _suggestions(word: str, known: Sequence[str], key: str) -> tuple[str, str]:
    """The allowed values and the override to try, if ``word`` is not among the ``known`` values of ``key``."""
    close = nearest(word, known)
    listed = ", ".join(known[:8]) + (f", … {len(known) - 8} more" if len(known) > 8 else "")
    return f"available: {listed}", f"{key}={close or known[0]}"


def _make_folder(folder: Path) -> None:
    """Create ``folder``. Raises ConfigError if no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"cannot write to {folder} ({error.strerror})"
        raise ConfigError([Problem("to", reason, "must be a writable folder", "to=report")]) from error


def _print_tables(results: Sequence[Table], lines: Sequence[str], others: Sequence[Table], console: Console) -> None:
    for number, table in enumerate(results):
        if number:
            console.print()
        print_table(table, console)
    for line in lines:
        _print_line(line, console)
    for table in others:
        console.print()
        print_table(table, console)


def _print_line(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _figures(rows: Sequence[Row], compared: Sequence[Comparison], searched: Sequence[Search], folder: Path) -> dict[str, Path]:
    from altprop.reporting.figures.report_figures import draw  # imports Matplotlib and torch, which nothing else here needs

    return draw(rows, compared, searched, folder)
