"""The epochs that may represent a run: those in which its weights were of the kind that it ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from altprop.nn.metrics.names import higher_is_better
from altprop.reporting.binary_accuracies import FULLY
from altprop.reporting.runs import Run

COMPLETE = "weights/complete"
"""1 in a pruned network's records after its last prune, 0 in those before."""
PRUNING = frozenset({"start_epoch", "every_epochs", "iterations"})
"""The options of a weights rule that prunes a dense network in several iterations."""


def best_record(records: Sequence[Mapping[str, Any]], metric: str, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The earliest record with the best ``metric``: the highest accuracy, the lowest loss or error.

    If the layers of the network become binary in the course of the run, only epochs in which all of them were binary count; if
    the network is pruned, only epochs after the last prune. ``config`` is the run's configuration.
    """
    candidates = [record for record in records if metric in record and not math.isnan(record[metric])]
    if any(FULLY in record for record in candidates):
        candidates = [record for record in candidates if record.get(FULLY)]
    candidates = [record for record in candidates if _is_pruned(record, config)]
    if not candidates:
        return None
    return (max if higher_is_better(metric) else min)(candidates, key=lambda record: record[metric])


def comparable_records(run: Run) -> list[Mapping[str, Any]]:
    """The records of epochs in which the weights were of the kind that the run ends with: as binary, as pruned."""
    binary = bool(run.records and run.records[-1].get(FULLY))
    return [record for record in run.records if (not binary or record.get(FULLY)) and _is_pruned(record, run.config)]


def selected_value(run: Run, metric: str) -> float | None:
    """``metric`` at the run's selected epoch; None if it selected none, or if the network was not yet pruned at that epoch."""
    return run.selected[metric] if metric in run.selected and _is_pruned(run.selected, run.config) else None


def _is_pruned(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether ``record`` was made after the last prune; always true if the network is not pruned.

    Runs made before :data:`COMPLETE` was recorded do not have it in their records; their configuration is used instead.
    """
    return bool(record[COMPLETE]) if COMPLETE in record else record["epoch"] >= _last_prune(config)


def _last_prune(config: Mapping[str, Any]) -> float:
    """The number of finished epochs after which a run with ``config`` is pruned for the last time; 0 without pruning."""
    weights = (config.get("algorithm") or {}).get("weights") or {}
    if not weights.keys() >= PRUNING:
        return 0.0
    return float(weights["start_epoch"] + weights["every_epochs"] * (weights["iterations"] - 1) + 1)
