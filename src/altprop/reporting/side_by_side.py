"""Rows that share model and data set at equal cost: after as many epochs, as much training time, as many FLOPs."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from altprop.reporting.collect import Row, flat
from altprop.reporting.columns import duration, experiment, operations, spread
from altprop.reporting.curves import FLOPS, TIME
from altprop.reporting.runs import Run
from altprop.reporting.statistics import Statistic, statistic

COSTS = {"epochs": "epoch", "seconds": TIME, "flops": FLOPS}
"""What may be held equal, and the name of it in a record."""
HOW = ("units", "batch_size", "eval_batch_size", "workers", "prefetch")
"""Keys of ``model`` and ``dataset`` that belong to how a network is trained rather than to what is to be learnt."""


@dataclass(frozen=True)
class Comparison:
    """Rows with one model, data set and metric.

    ``budgets`` are the largest costs that all their finished runs have reached (epochs, seconds of training, floating-point
    operations), None where a run did not record it; ``values`` those of every row there, over its seeds: of each run the last
    record that is not beyond the budget. None where a run has no record so early.
    """

    title: str
    metric: str
    budgets: Mapping[str, float | None]
    rows: Sequence[Row]
    values: Sequence[Mapping[str, Statistic | None]]


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """One for every model and data set that at least two of ``rows`` have finished runs of, in their order."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.last is not None and row.model and row.dataset:
            groups[_shared(row)].append(row)
    return [_comparison(members) for members in groups.values() if len(members) > 1]


def value_at(run: Run, metric: str, cost: str, budget: float) -> float | None:
    """``metric`` in the last record of ``run`` at which ``cost``, a name in records, is not beyond ``budget``."""
    found = [record[metric] for record in run.records if metric in record and record.get(cost, budget + 1) <= budget]
    return found[-1] if found else None


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles of the columns and the texts of the rows, for every kind of table."""
    forms = {
        "epochs": lambda value: f"at {value:g} {'epoch' if value == 1 else 'epochs'}",
        "seconds": lambda value: f"at {duration(value)} of training",
        "flops": lambda value: f"at {operations(value)} FLOPs",
    }
    known = {name: value for name, value in comparison.budgets.items() if value is not None}
    titles = ["experiment", "algorithm", "seeds", *(forms[name](value) for name, value in known.items())]
    lines = [
        [experiment(row), row.algorithm, str(len(row.finished)), *(spread(values[name]) for name in known)]
        for row, values in zip(comparison.rows, comparison.values, strict=True)
    ]
    return titles, lines


def csv_comparisons(found: Sequence[Comparison]) -> str:
    """Every number in full: one line per row of every comparison and cost."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["comparison", "metric", "experiment", "variant", "algorithm", "equal", "budget", "count", "mean", "std"])
    for comparison in found:
        for row, values in zip(comparison.rows, comparison.values, strict=True):
            for name, value in values.items():
                numbers = [value.count, value.mean, value.std] if value else [0, None, None]
                labels = [comparison.title, comparison.metric, row.name, row.variant, row.algorithm]
                writer.writerow([*labels, name, comparison.budgets[name], *numbers])
    return stream.getvalue()


def _shared(row: Row) -> str:
    config = row.finished[0].config
    parts = [flat({node: config.get(node) or {}}) for node in ("dataset", "model")]
    kept = {key: value for part in parts for key, value in part.items() if not set(key.split(".")[1:]) & set(HOW)}
    return repr((row.metric, sorted(kept.items(), key=repr)))


def _comparison(rows: Sequence[Row]) -> Comparison:
    metric = rows[0].metric
    runs = [run for row in rows for run in row.finished]
    budgets = {name: _budget(runs, metric, cost) for name, cost in COSTS.items()}
    values = [
        {name: _value(row, metric, COSTS[name], budget) if budget is not None else None for name, budget in budgets.items()}
        for row in rows
    ]
    title = " on ".join(part for part in (rows[0].model, rows[0].dataset) if part)
    return Comparison(title, metric, budgets, rows, values)


def _budget(runs: Sequence[Run], metric: str, cost: str) -> float | None:
    reached = [[record[cost] for record in run.records if metric in record and cost in record] for run in runs]
    return min(max(costs) for costs in reached) if all(reached) else None


def _value(row: Row, metric: str, cost: str, budget: float) -> Statistic | None:
    values = [value_at(run, metric, cost, budget) for run in row.finished]
    known = [value for value in values if value is not None]
    return statistic(known) if len(known) == len(values) else None
