"""What the tables of a report show, in words for people and in plain values for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.collect import Row
from altprop.reporting.statistics import Statistic

CHANGED = "changed by the command"
DASH = "–"  # noqa: RUF001 - a dash, not a minus


@dataclass(frozen=True)
class Column:
    """``text`` is what people read; ``number`` what the page sorts by, None for words."""

    name: str
    title: str
    text: Callable[[Row], str]
    number: Callable[[Row], float | None] | None = None


def spread(value: Statistic | None) -> str:
    """``98.21 ± 0.13``; without a spread for a single run."""
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


def experiment(row: Row) -> str:
    """Its name, and what distinguishes it from rows of the same name."""
    return f"{row.name} {row.variant}".rstrip()


def paper_value(row: Row) -> str:
    """The published number with its deviation."""
    if row.paper is None or row.paper.value is None:
        return DASH
    return f"{row.paper.value:g}" if row.paper.std is None else f"{row.paper.value:g} ± {row.paper.std:g}"


def source(row: Row) -> str:
    """Where the published number stands."""
    return ", ".join(part for part in (row.paper.reference, row.paper.table) if part) if row.paper else ""


def verdict(row: Row) -> str:
    """Whether the published number lies inside the 95 % interval."""
    return DASH if row.inside is None else "yes" if row.inside else "no"


def difference(row: Row) -> str:
    """Ours minus the paper's."""
    return DASH if row.difference is None else f"{row.difference:+.2f}"


def states(row: Row) -> str:
    """How many runs did not come to their end."""
    parts = [(len(row.failed), "failed"), (len(row.unfinished), "unfinished")]
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def mean_of(name: str) -> Callable[[Row], float | None]:
    """The mean of one of a row's statistics."""

    def number(row: Row) -> float | None:
        value: Statistic | None = getattr(row, name)
        return None if value is None or math.isnan(value.mean) else value.mean

    return number


def memory(row: Row) -> str:
    """``1.2 GB (process)``: the most that a run held, and of what."""
    value = mean_of("peak_memory")(row)
    if value is None:
        return DASH
    amount = f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    return f"{amount} ({row.peak_memory_of})"


def operations(value: float) -> str:
    """``1.23e+12``."""
    return f"{value:.3g}"


def _shown(name: str, form: Callable[[float], str]) -> Callable[[Row], str]:
    number = mean_of(name)
    return lambda row: DASH if (value := number(row)) is None else form(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = (
    Column("experiment", "experiment", experiment),
    Column("dataset", "data", lambda row: row.dataset),
    Column("model", "model", lambda row: row.model),
    Column("algorithm", "algorithm", lambda row: row.algorithm),
    Column("metric", "metric", lambda row: row.metric),
    Column("seeds", "seeds", lambda row: str(len(row.finished)), lambda row: len(row.finished)),
    Column("epochs", "epochs", _shown("epochs", lambda value: f"{value:g}"), mean_of("epochs")),
    Column("last", "last epoch", lambda row: spread(row.last), mean_of("last")),
    Column("selected", "selected epoch", lambda row: spread(row.selected), mean_of("selected")),
    Column("best", "best epoch", lambda row: spread(row.best), mean_of("best")),
    Column(
        "interval",
        "95 % interval",
        lambda row: interval(getattr(row, row.compared)),
        lambda row: value.low if (value := getattr(row, row.compared)) else None,
    ),
    Column("paper", "paper", paper_value, lambda row: row.paper.value if row.paper else None),
    Column("difference", "difference", difference, lambda row: row.difference),
    Column("inside", "inside", verdict),
    Column("changed", CHANGED, lambda row: row.changed),
    Column("seconds", "time", _shown("seconds", duration), mean_of("seconds")),
    Column("images_per_second", "images/s", _shown("images_per_second", _count), mean_of("images_per_second")),
    Column("flops", "training FLOPs", _shown("flops", operations), mean_of("flops")),
    Column("peak_memory", "peak memory", memory, mean_of("peak_memory")),
    Column(
        "parameters",
        "parameters",
        lambda row: DASH if row.parameters is None else _count(row.parameters),
        lambda row: row.parameters,
    ),
    Column("nonzero", "non-zero", _shown("nonzero", _count), mean_of("nonzero")),
    Column("binary_layers", "binary layers", _shown("binary_layers", _count), mean_of("binary_layers")),
    Column("binary_weights", "binary weights", _shown("binary_weights", _count), mean_of("binary_weights")),
    Column("source", "paper's table", source),
    Column("states", "not finished", states),
)

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
    "states",
)
"""Left out where no row has anything to show in them."""
RESULTS = ("experiment", "seeds", "epochs", "last", "selected", "best", "interval", "states")
"""Those of the terminal's first table."""
AGAINST = ("paper", "difference", "inside", "changed", "source")
"""Those of the terminal's second table, beside the experiment: what is held against the paper, and what was changed of it."""
COSTS = ("seconds", "images_per_second", "flops", "peak_memory", "parameters", "nonzero", "binary_weights")
"""Those of the terminal's third table, beside the experiment."""
PRINTED = (*RESULTS, *AGAINST, *COSTS)
"""Those of a paper's table (LaTeX), in the order of :data:`COLUMNS`."""
WORDY = ("experiment", "changed", "source", "states")
"""Those that may take several lines."""


def columns_for(rows: Sequence[Row], names: Sequence[str] | None = None) -> list[Column]:
    """The columns called ``names`` (default: all) that have something to show."""
    chosen = [column for column in COLUMNS if names is None or column.name in names]
    return [column for column in chosen if column.name not in OPTIONAL or any(column.text(row) not in ("", DASH) for row in rows)]


def plain(row: Row) -> dict[str, Any]:
    """One row as plain values for the CSV file; None where there is none.

    Accuracies are in percent, times in seconds.
    """
    found: dict[str, Any] = {
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
        value: Statistic | None = getattr(row, name)
        found[f"{name}_count"] = value.count if value else 0
        for part in ("mean", "std", "low", "high"):
            found[f"{name}_{part}"] = getattr(value, part) if value else None
    found["best_epoch"] = row.best_epoch.mean if row.best_epoch else None
    for part in ("value", "std", "seeds", "reference", "table"):
        found[f"paper_{part}"] = getattr(row.paper, part) if row.paper else None
    found |= {"compared": row.compared, "difference": row.difference, "inside": row.inside, "parameters": row.parameters}
    found["peak_memory_of"] = row.peak_memory_of
    for name in ("seconds", "images_per_second", "flops", "peak_memory", "nonzero", "binary_layers", "binary_weights"):
        found[name] = mean_of(name)(row)
    return {**found, "hardware": row.hardware, "commits": row.commits}
