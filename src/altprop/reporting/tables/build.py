"""The tables of a report: results, milestones, and comparisons at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from altprop.reporting.comparisons import Comparison
from altprop.reporting.milestones import Milestone
from altprop.reporting.rows import Row
from altprop.reporting.searches import TEST, VALIDATION, Search, angles, at_the_end, learning_rate
from altprop.reporting.statistics import Statistic
from altprop.reporting.tables.columns import (
    BY_NAME,
    CHANGED,
    COSTS,
    DASH,
    DETAILS,
    EMPTY,
    RESULTS,
    WORDY,
    ResultColumn,
    columns_for,
    duration,
    interval,
    operations,
    plain_columns,
    plain_values,
    spread,
)
from altprop.reporting.tables.table import Cell, Column, Table


def results_table(
    rows: Sequence[Row], names: Sequence[str] | None = None, *, notes: Sequence[str] = (), messages: Sequence[str] = ()
) -> Table:
    """The results of ``rows`` in the columns called ``names`` (default: all), with every number in full as records.

    The columns are in the order of ``names``.
    """
    columns = columns_for(rows, names)
    return Table(
        columns=[Column(column.title, column.number is not None, column.name in WORDY) for column in columns],
        rows=[[_cell(row, column) for column in columns] for row in rows],
        notes=notes,
        messages=messages,
        records=[plain_values(row) if names is None else plain_columns(row, columns) for row in rows],
    )


def _cell(row: Row, column: ResultColumn) -> Cell:
    return Cell(column.text(row), column.number(row) if column.number else None)


def _statistic_cell(value: Statistic | None) -> Cell:
    return Cell(spread(value), value.mean if value else None)


def terminal_tables(rows: Sequence[Row]) -> list[Table]:
    """The results for a terminal: the values next to the paper's, their details, and what the runs cost.

    The second and third table contain only rows with something to show there.
    """
    tables = [results_table(rows, RESULTS)]
    for names in (DETAILS, COSTS):
        columns = columns_for(rows, names)
        relevant = [row for row in rows if any(column.text(row) not in EMPTY for column in columns)]
        if relevant:
            tables.append(results_table(relevant, ("experiment", *names)))
    return tables


def milestone_tables(milestones: Sequence[Milestone]) -> list[Table]:
    """The table of published values after some epochs and ours; empty without ``milestones``."""
    if not milestones:
        return []
    words = [Column("experiment", numeric=False), Column("metric", numeric=False)]
    numbers = [Column(title) for title in ("epoch", "seeds", "ours", "paper", "difference")]
    any_changed = any(each.changed for each in milestones)
    return [
        Table(
            title="Milestones: published values after some epochs",
            columns=[*words, *numbers, *([Column(CHANGED, numeric=False)] if any_changed else [])],
            rows=[_milestone_cells(each) + ([Cell(each.changed)] if any_changed else []) for each in milestones],
            records=[
                {
                    "experiment": each.row.name,
                    "variant": each.row.variant,
                    "changed": each.changed,
                    "metric": each.metric,
                    "epoch": each.epoch,
                    "count": each.ours.count,
                    "mean": each.ours.mean,
                    "std": each.ours.std,
                    "paper": each.published,
                    "difference": each.ours.mean - each.published,
                }
                for each in milestones
            ],
        )
    ]


def _milestone_cells(milestone: Milestone) -> list[Cell]:
    ours, published = milestone.ours, milestone.published
    difference = ours.mean - published
    return [
        Cell(milestone.row.label),
        Cell(milestone.metric),
        Cell(f"{milestone.epoch:g}", milestone.epoch),
        Cell(str(ours.count), ours.count),
        _statistic_cell(ours),
        Cell(f"{published:g}", published),
        Cell(f"{difference:+.2f}", difference),
    ]


def search_tables(searches: Sequence[Search]) -> list[Table]:
    """One table for each search: what was tried, and what the runs after it reached at equal cost and at their end."""
    return [_search_table(search) for search in searches]


def _search_table(search: Search) -> Table:
    comparison = search.comparison
    budgets = {} if comparison is None else {name: value for name, value in comparison.budgets.items() if value is not None}
    costs = [BY_NAME[name] for name in ("seconds", "flops", "peak_memory")]
    rows, records = [], []
    for row, trials in zip(search.rows, search.trials, strict=True):
        rate, test = learning_rate(row), at_the_end(row, TEST)
        equal = {name: _at_budget(comparison, row, name) for name in budgets}
        tried = {learning_rate(trial): at_the_end(trial, VALIDATION) for trial in trials}
        shown = ", ".join(
            f"{each:g}: {spread(value) if value else 'failed'}" for each, value in tried.items() if each is not None
        )
        layers = {layer: value.mean for layer, value in angles(row).items()}
        rows.append(
            [
                Cell(row.label),
                Cell(DASH if rate is None else f"{rate:g}", rate),
                Cell(shown),
                Cell(str(len(row.finished)), len(row.finished)),
                _statistic_cell(test),
                Cell(interval(test)),
                *map(_statistic_cell, equal.values()),
                *(_cell(row, column) for column in costs),
                Cell(", ".join(f"{mean:.0f}°" for mean in layers.values()) or DASH),
            ]
        )
        records.append(
            {
                "group": search.group,
                "experiment": row.name,
                "variant": row.variant,
                "rate": rate,
                "tried": " ".join(f"{each}:{value.mean if value else 'failed'}" for each, value in tried.items()),
                "count": len(row.finished),
                **{f"test_{part}": getattr(test, part) if test else None for part in ("mean", "std", "low", "high")},
                **{f"validation_at_equal_{name}": value.mean if value else None for name, value in equal.items()},
                **{f"equal_{name}": budget for name, budget in budgets.items()},
                **plain_columns(row, costs),
                "angles": " ".join(f"{layer}:{mean}" for layer, mean in layers.items()),
            }
        )
    return Table(
        title=f"Search and results: {search.group}",
        columns=[
            Column("experiment", numeric=False),
            Column("rate"),
            Column("validation accuracy of the trials", numeric=False),
            Column("seeds"),
            Column("test accuracy at the end"),
            Column("95 % interval", numeric=False),
            *(Column(f"validation {BUDGETS[name](value)}") for name, value in budgets.items()),
            *(Column(column.title) for column in costs),
            Column("angle of each layer", numeric=False),
        ],
        rows=rows,
        notes=[
            "The learning rate is the one with the best validation accuracy at the end of its trials, which never evaluated the "
            "test split. The runs evaluated it once, at their end.",
            "Angles are those between each layer's update and the gradient, first layer first, in the last step of training.",
            *(comparison.remarks if comparison else []),
        ],
        records=records,
    )


def _at_budget(comparison: Comparison | None, row: Row, cost: str) -> Statistic | None:
    if comparison is None:
        return None
    return next((values[cost] for member, values in zip(comparison.rows, comparison.values, strict=True) if member is row), None)


BUDGETS: Mapping[str, Callable[[float], str]] = {
    "epochs": lambda value: f"at {value:g} {'epoch' if value == 1 else 'epochs'}",
    "seconds": lambda value: f"at {duration(value)} of training",
    "flops": lambda value: f"at {operations(value)} FLOPs",
}
"""Titles of columns with values at equal cost."""


def comparison_table(comparison: Comparison) -> Table:
    """The values of a comparison's rows at every cost that all of their runs recorded."""
    budgets = {name: value for name, value in comparison.budgets.items() if value is not None}
    words = [Column("experiment", numeric=False), Column("algorithm", numeric=False)]
    rows = []
    records = []
    for row, values in zip(comparison.rows, comparison.values, strict=True):
        statistics = [values[name] for name in budgets]
        cells = [Cell(row.label), Cell(row.algorithm), Cell(str(len(row.finished)), len(row.finished))]
        rows.append([*cells, *map(_statistic_cell, statistics)])
        records += [
            {
                "comparison": comparison.title,
                "metric": comparison.metric,
                "experiment": row.name,
                "variant": row.variant,
                "algorithm": row.algorithm,
                "equal": name,
                "budget": comparison.budgets[name],
                "count": value.count if value else 0,
                "mean": value.mean if value else None,
                "std": value.std if value else None,
            }
            for name, value in values.items()
        ]
    return Table(
        title=f"Side by side at equal cost: {comparison.title}, {comparison.metric}",
        columns=[*words, Column("seeds"), *(Column(BUDGETS[name](value)) for name, value in budgets.items())],
        rows=rows,
        notes=comparison.remarks,
        records=records,
    )
