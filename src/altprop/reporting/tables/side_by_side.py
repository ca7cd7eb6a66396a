"""Rows that share model and data set at equal cost: after as many epochs, as much training time, as many FLOPs.

What a run started from counts as its own: a network that was pruned after the training of a dense one costs both.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from altprop.reporting.collect import TARGET, Row, flat, variant_of
from altprop.reporting.curves import FLOPS, TIME
from altprop.reporting.epochs import like_the_last
from altprop.reporting.runs import Run
from altprop.reporting.starts import Starts
from altprop.reporting.statistics import Statistic, statistic
from altprop.reporting.tables.columns import duration, experiment, operations, spread

COSTS = {"epochs": "epoch", "seconds": TIME, "flops": FLOPS}
"""What may be held equal, and the name of it in a record."""
HOW = (
    *("units", "batch_size", "eval_batch_size", "drop_last", "mean", "std"),
    *("conv_init", "linear_init", "linear_bias_init", "batch_norm_init", "init_scale"),
    *("dropout", "channel_dropout", "keep_probabilities"),
)
"""Keys of ``model`` and ``dataset`` that belong to how a network is trained rather than to what is to be learnt by what network:
activations, mini-batches, how pixels are scaled, initial values, dropout."""


@dataclass(frozen=True)
class Comparison:
    """Rows with one model, data set and metric.

    ``budgets`` are the largest costs that all their finished runs have reached (epochs, seconds of training, floating-point
    operations), None where a run did not record it; ``values`` those of every row there, over its seeds: of each run the last
    record that is not beyond the budget. None where a run has no record so early. Costs include those of what a run started from.
    """

    title: str
    metric: str
    budgets: Mapping[str, float | None]
    rows: Sequence[Row]
    values: Sequence[Mapping[str, Statistic | None]]
    remarks: Sequence[str]
    """What a reader must know to judge them, in sentences."""


Spent = Mapping[str, float | None]
"""What a run's predecessors cost, by name in records; None where one did not record it."""


def comparisons(rows: Sequence[Row], runs: Sequence[Run] = ()) -> list[Comparison]:
    """One for every model and data set that at least two of ``rows`` have finished runs of, in their order.

    What runs started from is looked up among ``runs`` and those of ``rows``; rows of which it is not found are left out.
    """
    starts = Starts([*(run for row in rows for run in row.finished), *runs])
    found = []
    for members in _groups(rows):
        known = [(row, spent) for row in members if (spent := _spent(row, starts)) is not None]
        if len(known) > 1:
            found.append(_comparison(known))
    titles = [comparison.title for comparison in found]
    same = {title: [entry.rows[0] for entry in found if entry.title == title] for title in titles}
    return [replace(entry, title=_distinct(entry, [_what(row) for row in same[entry.title]])) for entry in found]


def not_compared(rows: Sequence[Row], runs: Sequence[Run] = ()) -> list[str]:
    """A line for every row that stands beside no other because what it started from is not among ``runs``."""
    starts = Starts([*(run for row in rows for run in row.finished), *runs])
    return [
        f"not side by side: {experiment(row)}: a run that it started from is not below paths.outputs, so its cost is not known"
        for members in _groups(rows)
        if len(members) > 1
        for row in members
        if _spent(row, starts) is None
    ]


def value_at(run: Run, metric: str, cost: str, budget: float, spent: float = 0.0) -> float | None:
    """``metric`` in the last record of ``run`` at which ``cost``, a name in records, is not beyond ``budget``.

    ``spent`` is what it had cost before it began. A network that is to be binary or pruned counts from when it is.
    """
    found = [
        record[metric] for record in like_the_last(run) if metric in record and spent + record.get(cost, budget + 1) <= budget
    ]
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


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows with finished runs that share model, data set and metric, in their order."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.last is not None and row.model and row.dataset:
            groups[repr((row.metric, sorted(_what(row).items(), key=repr)))].append(row)
    return list(groups.values())


def _nodes(row: Row) -> dict[str, Any]:
    """Dotted keys of the nodes ``dataset`` and ``model``."""
    config = row.finished[0].config
    return flat({node: config.get(node) or {} for node in ("dataset", "model")})


def _is_how(key: str) -> bool:
    return bool(set(key.split(".")[1:]) & set(HOW))


def _what(row: Row) -> dict[str, Any]:
    """Dotted keys of what is to be learnt by what network."""
    return {key: value for key, value in _nodes(row).items() if not _is_how(key)}


def _distinct(comparison: Comparison, others: Sequence[Mapping[str, Any]]) -> str:
    """The title, with what tells the network and data from those of ``others`` with the same title."""
    variant = variant_of(_what(comparison.rows[0]), others)
    return f"{comparison.title} ({variant})" if variant else comparison.title


def _spent(row: Row, starts: Starts) -> list[Spent] | None:
    """What was spent before each of its finished runs began; None where that is not known of one."""
    costs = [starts.costs(run, list(COSTS.values())) for run in row.finished]
    known: list[Spent] = [cost for cost in costs if cost is not None]
    return known if len(known) == len(costs) else None


def _comparison(members: Sequence[tuple[Row, list[Spent]]]) -> Comparison:
    rows = [row for row, _ in members]
    metric = rows[0].metric
    runs = [pair for row, spent in members for pair in zip(row.finished, spent, strict=True)]
    budgets = {name: _budget(runs, metric, cost) for name, cost in COSTS.items()}
    values = [
        {
            name: _value(row, spent, metric, COSTS[name], budget) if budget is not None else None
            for name, budget in budgets.items()
        }
        for row, spent in members
    ]
    title = " on ".join(part for part in (rows[0].model, rows[0].dataset) if part)
    return Comparison(title, metric, budgets, rows, values, _remarks(members))


def _remarks(members: Sequence[tuple[Row, list[Spent]]]) -> list[str]:
    nodes = [_nodes(row) for row, _ in members]
    keys = sorted({key.removesuffix(f".{TARGET}") for node in nodes for key in node if _is_how(key)})
    # a node of another class (units) is one difference, whatever else it holds
    keys = [key for key in keys if not any(key.startswith(f"{other}.") for other in keys)]
    differ = [key for key in keys if len({repr(_below(key, node)) for node in nodes}) > 1]
    begun = [(row, statistic([epochs for cost in spent if (epochs := cost["epoch"])])) for row, spent in members]
    costs = [f"{experiment(row)} ({before.mean:g} epochs)" for row, before in begun if before]
    remarks = [f"The rows differ in {', '.join(differ)}, too."] if differ else []
    return remarks + ([f"Costs include those of the runs that these started from: {', '.join(costs)}."] if costs else [])


def _below(key: str, node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name == key or name.startswith(f"{key}.")}


def _budget(runs: Sequence[tuple[Run, Spent]], metric: str, cost: str) -> float | None:
    reached = [
        [before + record[cost] for record in run.records if metric in record and cost in record]
        for run, spent in runs
        if (before := spent[cost]) is not None
    ]
    return min(max(costs) for costs in reached) if len(reached) == len(runs) and all(reached) else None


def _value(row: Row, spent: Sequence[Spent], metric: str, cost: str, budget: float) -> Statistic | None:
    values = [value_at(run, metric, cost, budget, before[cost] or 0.0) for run, before in zip(row.finished, spent, strict=True)]
    known = [value for value in values if value is not None]
    return statistic(known) if len(known) == len(values) else None
