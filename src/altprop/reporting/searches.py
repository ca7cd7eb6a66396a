"""Sweeps with a search: the runs at the chosen learning rates, and the trials on the validation split that chose them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.comparisons import Comparison, compare
from altprop.reporting.rows import Row, flatten, last_value
from altprop.reporting.runs import Run
from altprop.reporting.statistics import Statistic, statistic

VALIDATION, TEST = "validation/accuracy", "test/accuracy"
ANGLE = "alignment/angle/"
SEARCHED = ("optimizer", "trainer.evaluate_test")
"""The keys in which a row may differ from its trials."""


@dataclass(frozen=True)
class Search:
    """One sweep with a search.

    Args:
        group: The sweep's group.
        rows: The runs after the search, one row for each setting, best test accuracy first.
        trials: The trials of each row, by learning rate.
        comparison: The validation accuracy of ``rows`` at equal cost; None if there is only one row or if a run did not record
            its costs.
    """

    group: str
    rows: Sequence[Row]
    trials: Sequence[Sequence[Row]]
    comparison: Comparison | None


def searches(rows: Sequence[Row], runs: Sequence[Run] = ()) -> list[Search]:
    """The searches among ``rows``: the groups with finished trials and with finished runs after them.

    ``runs`` are those that other runs may have started from, whose cost counts.
    """
    sweeps: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if group := config_of(row).get("group"):
            sweeps[str(group)].append(row)
    results = []
    for group, members in sweeps.items():
        trials = [row for row in members if is_trial(row)]
        chosen = [(row, _trials_of(row, trials)) for row in members if row.finished and not is_trial(row)]
        ranked = sorted((pair for pair in chosen if pair[1]), key=lambda pair: _mean(at_the_end(pair[0], TEST)), reverse=True)
        if ranked:
            best_first = [row for row, _ in ranked]
            results.append(Search(group, best_first, [tried for _, tried in ranked], compare(best_first, VALIDATION, runs)))
    return results


def is_trial(row: Row) -> bool:
    """Whether the row's runs never evaluated the test split."""
    return (config_of(row).get("trainer") or {}).get("evaluate_test") == "never"


def config_of(row: Row) -> Mapping[str, Any]:
    """The configuration of the row's first run."""
    return [*row.finished, *row.unfinished, *row.failed][0].config


def at_the_end(row: Row, metric: str) -> Statistic | None:
    """``metric`` in the last record of each finished run that contains it."""
    return statistic([value for run in row.finished if (value := last_value(run.records, metric)) is not None])


def learning_rate(row: Row) -> float | None:
    """The configured learning rate of the row's runs."""
    rate = (config_of(row).get("optimizer") or {}).get("lr")
    return None if rate is None else float(rate)


def angles(row: Row) -> dict[str, Statistic]:
    """The last angle (degrees) between each layer's update and the gradient, by layer in forward order."""
    # The last record has every layer in forward order; in the first ones, layers whose gradient has not arrived are missing.
    records = [record for run in row.finished for record in reversed(run.records)]
    layers = dict.fromkeys(name for record in records for name in record if name.startswith(ANGLE))
    values = {name.removeprefix(ANGLE): at_the_end(row, name) for name in layers}
    return {layer: value for layer, value in values.items() if value is not None}


def _trials_of(row: Row, trials: Sequence[Row]) -> list[Row]:
    same_setting = [trial for trial in trials if trial.name == row.name and _setting(trial) == _setting(row)]
    return sorted(same_setting, key=lambda trial: learning_rate(trial) or 0.0)


def _setting(row: Row) -> dict[str, Any]:
    """What a row shares with its trials. Null counts as absent: the trials may be older than an option that is not used."""
    values = flatten(config_of(row))
    return {key: value for key, value in values.items() if not key.startswith(SEARCHED) and value is not None}


def _mean(value: Statistic | None) -> float:
    return 0.0 if value is None else value.mean
