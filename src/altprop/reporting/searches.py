"""Sweeps that search for a learning rate: which of a signal's rates the validation split prefers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from altprop.reporting.rows import Row, last_value
from altprop.reporting.statistics import statistic

VALIDATION = "validation/accuracy"


def searches(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return, for each sweep in which several experiments were run at several learning rates, one row per experiment.

    Rows that differ only in ``optimizer.lr`` are candidates, and the one with the best mean accuracy on the validation split at
    the end of its runs is chosen. Only finished runs count; candidates without a validation accuracy are left out. The test
    split plays no role.
    """
    sweeps: dict[str, dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.finished and validation_accuracy(row) is not None:
            config = row.finished[0].config
            others = repr(sorted(_without_rate(config.get("optimizer") or {}).items(), key=repr))
            setting = " ".join(word for word in row.variant.split() if not word.startswith("optimizer.lr="))
            sweeps[str(config.get("group") or "")][row.name, setting + others].append(row)
    return {
        group: [max(candidates, key=lambda row: validation_accuracy(row) or 0.0) for candidates in experiments.values()]
        for group, experiments in sweeps.items()
        if group and len(experiments) > 1 and any(len(candidates) > 1 for candidates in experiments.values())
    }


def validation_accuracy(row: Row) -> float | None:
    """Return the mean validation accuracy of the last evaluations of the row's finished runs; None if there are none."""
    values = [value for run in row.finished if (value := last_value(run.records, VALIDATION)) is not None]
    mean = statistic(values)
    return None if mean is None else mean.mean


def learning_rate(row: Row) -> float | None:
    """Return the configured learning rate of the row's runs."""
    rate = (row.finished[0].config.get("optimizer") or {}).get("lr")
    return None if rate is None else float(rate)


def _without_rate(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in optimizer.items() if key != "lr"}
