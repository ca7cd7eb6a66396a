"""The columns of the table of results: texts for people and plain values for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.rows import Row
from altprop.reporting.statistics import Statistic

CHANGED = "changed by the command"
DASH = "–"  # noqa: RUF001 - a dash, not a minus
EMPTY = ("", DASH)
"""Texts of cells without content."""
MIXED = "*"
"""Follows the number of seeds if they come from different code or from different numbers of threads."""


@dataclass(frozen=True)
class ResultColumn:
    """A column of the table of results.

    Args:
        name: The name by which other tables choose the column.
        title: The title above it.
        text: Returns a row's cell as text.
        number: Returns the number that the text stands for, by which the HTML page sorts; None if the column contains words.
    """

    name: str
    title: str
    text: Callable[[Row], str]
    number: Callable[[Row], float | None] | None = None


def spread(value: Statistic | None) -> str:
    """``98.21 ± 0.13``, or ``98.21`` for a single run."""
    if value is None:
        return DASH
    return f"{value.mean:.2f}" if value.std is None else f"{value.mean:.2f} ± {value.std:.2f}"


def interval(value: Statistic | None) -> str:
    """``98.08 to 98.34``, the 95 % interval of the mean."""
    return DASH if value is None or value.low is None else f"{value.low:.2f} to {value.high:.2f}"


def duration(seconds: float) -> str:
    """``41 s``, ``12:05 min`` or ``3:20 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def paper_value(row: Row) -> str:
    """``98.44 ± 0.1``, the published number and its standard deviation."""
    if row.paper is None or row.paper.value is None:
        return DASH
    return f"{row.paper.value:g}" if row.paper.std is None else f"{row.paper.value:g} ± {row.paper.std:g}"


def source(row: Row) -> str:
    """The paper and table of the published number; empty if the row has none."""
    if row.paper is None or row.paper.value is None:
        return ""
    return ", ".join(part for part in (row.paper.reference, row.paper.table) if part)


def verdict(row: Row) -> str:
    """Whether the published number is inside the 95 % interval, ``yes`` or ``no``."""
    return DASH if row.inside is None else "yes" if row.inside else "no"


def difference(row: Row) -> str:
    """``+0.13``, our value minus the paper's."""
    return DASH if row.difference is None else f"{row.difference:+.2f}"


def started_from(row: Row) -> str:
    """``baseline/mnist_mlp/0123456789ab (9f86d081884c)``: the run or file whose weights the row's first run started from."""
    sources = list(dict.fromkeys(run.started_from for run in row.finished if run.started_from))
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "") if sources else ""


def states(row: Row) -> str:
    """``1 failed, 2 unfinished``, the number of runs that did not finish."""
    parts = [(len(row.failed), "failed"), (len(row.unfinished), "unfinished")]
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def mean_of(name: str) -> Callable[[Row], float | None]:
    """A function that returns the mean of a row's statistic ``name``; None if there is none or it is NaN."""

    def number(row: Row) -> float | None:
        value: Statistic | None = getattr(row, name)
        return None if value is None or math.isnan(value.mean) else value.mean

    return number


def memory(row: Row) -> str:
    """``1.20 GB (process)``, the peak memory and what was measured."""
    value = mean_of("peak_memory")(row)
    if value is None:
        return DASH
    amount = f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    return f"{amount} ({row.peak_memory_of})"


def operations(value: float) -> str:
    """``1.23e+12``, a number of floating-point operations."""
    return f"{value:.3g}"


def _formatted(name: str, form: Callable[[float], str]) -> Callable[[Row], str]:
    number = mean_of(name)
    return lambda row: DASH if (value := number(row)) is None else form(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = (
    ResultColumn("experiment", "experiment", lambda row: row.label),
    ResultColumn("seeds", "seeds", lambda row: f"{len(row.finished)}{MIXED if row.mixed else ''}", lambda row: len(row.finished)),
    ResultColumn("last", "last epoch", lambda row: spread(row.last), mean_of("last")),
    ResultColumn("paper", "paper", paper_value, lambda row: row.paper.value if row.paper else None),
    ResultColumn("difference", "difference", difference, lambda row: row.difference),
    ResultColumn("inside", "inside", verdict),
    ResultColumn(
        "interval",
        "95 % interval",
        lambda row: interval(getattr(row, row.compared)),
        lambda row: value.low if (value := getattr(row, row.compared)) else None,
    ),
    ResultColumn("selected", "selected epoch", lambda row: spread(row.selected), mean_of("selected")),
    ResultColumn("best", "best epoch", lambda row: spread(row.best), mean_of("best")),
    ResultColumn("epochs", "epochs", _formatted("epochs", lambda value: f"{value:g}"), mean_of("epochs")),
    ResultColumn("dataset", "data", lambda row: row.dataset),
    ResultColumn("model", "model", lambda row: row.model),
    ResultColumn("algorithm", "algorithm", lambda row: row.algorithm),
    ResultColumn("metric", "metric", lambda row: row.metric),
    ResultColumn("changed", CHANGED, lambda row: row.changed),
    ResultColumn("started_from", "started from", started_from),
    ResultColumn("seconds", "time", _formatted("seconds", duration), mean_of("seconds")),
    ResultColumn("images_per_second", "images/s", _formatted("images_per_second", _count), mean_of("images_per_second")),
    ResultColumn("flops", "training FLOPs", _formatted("flops", operations), mean_of("flops")),
    ResultColumn("peak_memory", "peak memory", memory, mean_of("peak_memory")),
    ResultColumn(
        "parameters",
        "parameters",
        lambda row: DASH if row.parameters is None else _count(row.parameters),
        lambda row: row.parameters,
    ),
    ResultColumn("nonzero", "non-zero", _formatted("nonzero", _count), mean_of("nonzero")),
    ResultColumn("binary_layers", "binary layers", _formatted("binary_layers", _count), mean_of("binary_layers")),
    ResultColumn("binary_weights", "binary weights", _formatted("binary_weights", _count), mean_of("binary_weights")),
    ResultColumn("source", "paper's table", source),
    ResultColumn("states", "not finished", states),
)
"""All columns: our value and the paper's come first, then the other epochs, what was trained, and what it cost."""
BY_NAME = {column.name: column for column in COLUMNS}

OPTIONAL = (
    "selected",
    "paper",
    "difference",
    "inside",
    "source",
    "flops",
    "peak_memory",
    "parameters",
    "nonzero",
    "binary_layers",
    "binary_weights",
    "changed",
    "started_from",
    "states",
)
"""Columns that are left out if they are empty in all rows."""
PAPER = ("paper", "difference", "inside")
"""The comparison with the paper's number, next to ours."""
RESULTS = ("experiment", "seeds", "last", *PAPER, "epochs", "states")
"""Columns of the first table on a terminal."""
DETAILS = ("interval", "selected", "best", "changed", "started_from", "source")
"""Columns of the second table on a terminal, after the experiment: other epochs, what was changed, and the paper's table."""
COSTS = ("seconds", "images_per_second", "flops", "peak_memory", "parameters", "nonzero", "binary_weights")
"""Columns of the third table on a terminal, after the experiment."""
PUBLISHED = (*RESULTS, *DETAILS, *COSTS)
"""Columns of the LaTeX table, in the order of :data:`COLUMNS`."""
WORDY = ("experiment", "changed", "started_from", "source", "states")
"""Columns whose cells may be broken into several lines."""


def columns_for(rows: Sequence[Row], names: Sequence[str] | None = None) -> list[ResultColumn]:
    """The columns called ``names`` (default: all) without the optional ones that are empty in all ``rows``."""
    columns = list(COLUMNS) if names is None else [BY_NAME[name] for name in names]
    return [column for column in columns if column.name not in OPTIONAL or any(column.text(row) not in EMPTY for row in rows)]


def plain_columns(row: Row, columns: Sequence[ResultColumn]) -> dict[str, Any]:
    """The values of a row in ``columns`` for the CSV file, by name: numbers in full, words as they are shown."""
    return {column.name: column.number(row) if column.number else column.text(row) for column in columns}


def plain_values(row: Row) -> dict[str, Any]:
    """The values of a row for the CSV file, by name; None if a value is missing.

    Accuracies are in percent, times in seconds.
    """
    values: dict[str, Any] = {
        "experiment": row.name,
        "variant": row.variant,
        "changed": row.changed,
        "group": row.group,
        "dataset": row.dataset,
        "model": row.model,
        "algorithm": row.algorithm,
        "metric": row.metric,
        "seeds": " ".join(map(str, row.seeds)),
        "finished": len(row.finished),
        "unfinished": len(row.unfinished),
        "failed": len(row.failed),
        "epochs": row.epochs.mean if row.epochs else None,
    }
    for name in ("last", "selected", "best"):
        statistic: Statistic | None = getattr(row, name)
        values[f"{name}_count"] = statistic.count if statistic else 0
        for part in ("mean", "std", "low", "high"):
            values[f"{name}_{part}"] = getattr(statistic, part) if statistic else None
    values["best_epoch"] = row.best_epoch.mean if row.best_epoch else None
    for part in ("value", "std", "seeds", "reference", "table"):
        values[f"paper_{part}"] = getattr(row.paper, part) if row.paper else None
    values |= {"compared": row.compared, "difference": row.difference, "inside": row.inside, "parameters": row.parameters}
    values["peak_memory_of"] = row.peak_memory_of
    for name in ("seconds", "images_per_second", "flops", "peak_memory", "nonzero", "binary_layers", "binary_weights"):
        values[name] = mean_of(name)(row)
    return {**values, "hardware": row.hardware, "commits": row.commits, "mixed": row.mixed}
