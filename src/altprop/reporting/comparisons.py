"""Comparisons at equal cost of rows with the same model and data set: at equal epochs, training time and FLOPs.

The cost of a run includes that of what it started from: a network that was pruned after the training of a dense one costs both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from altprop.reporting.curves import FLOPS, TIME
from altprop.reporting.epochs import comparable_records
from altprop.reporting.prior_costs import PriorCosts
from altprop.reporting.rows import TARGET, Row, flatten, variant_of
from altprop.reporting.runs import Run
from altprop.reporting.statistics import Statistic, statistic

COSTS = {"epochs": "epoch", "seconds": TIME, "flops": FLOPS}
"""The costs at which rows are compared, and their names in records."""
TRAINING_KEYS = (
    *("units", "batch_size", "eval_batch_size", "drop_last", "mean", "std"),
    *("conv_init", "linear_init", "linear_bias_init", "batch_norm_init", "init_scale"),
    *("dropout", "channel_dropout", "keep_probabilities", "weights_from"),
)
"""Keys of ``model`` and ``dataset`` in which compared rows may differ, because they belong to how a network is trained:
activations, mini-batches, how pixels are scaled, initial values, weights to start from, dropout. All other keys define the
network and its task."""


@dataclass(frozen=True)
class Comparison:
    """Rows with the same model, data set and metric.

    ``budgets`` are the largest costs that all their finished runs have reached (epochs, seconds of training, floating-point
    operations); None if a run did not record the cost. ``values`` are each row's statistics at these budgets over its seeds; they
    use each run's last record within the budget and are None if a run has no such record. Costs include those of what a run
    started from.
    """

    title: str
    metric: str
    budgets: Mapping[str, float | None]
    rows: Sequence[Row]
    values: Sequence[Mapping[str, Statistic | None]]
    remarks: Sequence[str]
    """Sentences on what a reader must know to judge the values."""


Costs = Mapping[str, float | None]
"""What a run's predecessors cost, by name in records; None if one of them did not record it."""


def comparisons(rows: Sequence[Row], runs: Sequence[Run] = ()) -> list[Comparison]:
    """One comparison for every model and data set for which at least two of ``rows`` have finished runs.

    What runs started from is looked up among ``runs`` and the runs of ``rows``; rows for which it is not found are left out.
    """
    prior_costs = _prior_costs(rows, runs)
    results = []
    for group in _groups(rows):
        members = [(row, prior) for row in group if (prior := _costs_before(row, prior_costs)) is not None]
        if len(members) > 1:
            results.append(_comparison(members, members[0][0].metric))
    titles = [comparison.title for comparison in results]
    namesakes = {title: [entry.rows[0] for entry in results if entry.title == title] for title in titles}
    return [replace(entry, title=_distinct_title(entry, [_task(row) for row in namesakes[entry.title]])) for entry in results]


def compare(rows: Sequence[Row], metric: str, runs: Sequence[Run] = ()) -> Comparison | None:
    """The comparison of ``metric`` in ``rows``, which may have different models; None if there are fewer than two.

    Rows for which it is not known what they started from are left out.
    """
    prior_costs = _prior_costs(rows, runs)
    members = [(row, prior) for row in rows if (prior := _costs_before(row, prior_costs)) is not None]
    return _comparison(members, metric) if len(members) > 1 else None


def excluded(rows: Sequence[Row], runs: Sequence[Run] = ()) -> list[str]:
    """One line for every row that could be compared if the runs that it started from were among ``runs``."""
    prior_costs = _prior_costs(rows, runs)
    return [
        f"not side by side: {row.label}: a run that it started from is not below paths.outputs, so its cost is unknown"
        for group in _groups(rows)
        if len(group) > 1
        for row in group
        if _costs_before(row, prior_costs) is None
    ]


def value_at(run: Run, metric: str, cost: str, budget: float, prior: float = 0.0) -> float | None:
    """``metric`` in the last record of ``run`` within ``budget``; None if there is no such record.

    ``cost`` is the name in records of what the budget limits, and ``prior`` what the run had cost before it began. If the network
    is to be binary or pruned, only epochs in which it is count.
    """
    values = [
        record[metric]
        for record in comparable_records(run)
        if metric in record and prior + record.get(cost, budget + 1) <= budget
    ]
    return values[-1] if values else None


def _prior_costs(rows: Sequence[Row], runs: Sequence[Run]) -> PriorCosts:
    return PriorCosts([*(run for row in rows for run in row.finished), *runs])


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows with finished runs, grouped by model, data set and metric; order is preserved."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.last is not None and row.model and row.dataset:
            groups[repr((row.metric, sorted(_task(row).items(), key=repr)))].append(row)
    return list(groups.values())


def _settings(row: Row) -> dict[str, Any]:
    """The values in the nodes ``dataset`` and ``model``, by dotted key."""
    config = row.finished[0].config
    return flatten({node: config.get(node) or {} for node in ("dataset", "model")})


def _is_training_key(key: str) -> bool:
    return bool(set(key.split(".")[1:]) & set(TRAINING_KEYS))


def _task(row: Row) -> dict[str, Any]:
    """The values that define the network and what it is to learn, by dotted key."""
    return {key: value for key, value in _settings(row).items() if not _is_training_key(key)}


def _distinct_title(comparison: Comparison, others: Sequence[Mapping[str, Any]]) -> str:
    """The title, followed by what distinguishes the network and data from ``others``, the tasks with the same title."""
    variant = variant_of(_task(comparison.rows[0]), others)
    return f"{comparison.title} ({variant})" if variant else comparison.title


def _costs_before(row: Row, prior_costs: PriorCosts) -> list[Costs] | None:
    """What was spent before each of the row's finished runs began; None if that is unknown for one of them."""
    results = [prior_costs.of(run, list(COSTS.values())) for run in row.finished]
    known: list[Costs] = [costs for costs in results if costs is not None]
    return known if len(known) == len(results) else None


def _comparison(members: Sequence[tuple[Row, list[Costs]]], metric: str) -> Comparison:
    """The comparison of ``metric`` in rows, each with what was spent before each of its finished runs began."""
    rows = [row for row, _ in members]
    runs = [pair for row, prior in members for pair in zip(row.finished, prior, strict=True)]
    budgets = {name: _budget(runs, metric, cost) for name, cost in COSTS.items()}
    values = [
        {
            name: _value(row, prior, metric, COSTS[name], budget) if budget is not None else None
            for name, budget in budgets.items()
        }
        for row, prior in members
    ]
    title = " on ".join(part for part in (rows[0].model, rows[0].dataset) if part)
    return Comparison(title, metric, budgets, rows, values, _remarks(members))


def _remarks(members: Sequence[tuple[Row, list[Costs]]]) -> list[str]:
    settings = [_settings(row) for row, _ in members]
    keys = sorted({key.removesuffix(f".{TARGET}") for values in settings for key in values if _is_training_key(key)})
    # A node of another class (units, for example) is one difference, whatever other keys it has.
    keys = [key for key in keys if not any(key.startswith(f"{other}.") for other in keys)]
    differences = [key for key in keys if len({repr(_at_or_below(key, values)) for values in settings}) > 1]
    epochs_before = [(row, statistic([epochs for costs in prior if (epochs := costs["epoch"])])) for row, prior in members]
    continued = [f"{row.label} ({epochs.mean:g} epochs)" for row, epochs in epochs_before if epochs]
    remarks = [f"The rows also differ in {', '.join(differences)}."] if differences else []
    return remarks + ([f"Costs include those of the runs that these started from: {', '.join(continued)}."] if continued else [])


def _at_or_below(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name == key or name.startswith(f"{key}.")}


def _budget(runs: Sequence[tuple[Run, Costs]], metric: str, cost: str) -> float | None:
    """The largest ``cost`` that all ``runs`` have reached; None if one of them did not record it."""
    reached = [
        [before + record[cost] for record in run.records if metric in record and cost in record]
        for run, prior in runs
        if (before := prior[cost]) is not None
    ]
    return min(max(costs) for costs in reached) if len(reached) == len(runs) and all(reached) else None


def _value(row: Row, prior: Sequence[Costs], metric: str, cost: str, budget: float) -> Statistic | None:
    results = [value_at(run, metric, cost, budget, before[cost] or 0.0) for run, before in zip(row.finished, prior, strict=True)]
    known = [value for value in results if value is not None]
    return statistic(known) if len(known) == len(results) else None
