"""A metric through training, over seeds: what the report's curves show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.statistics import statistic

TIME = "time/train_seconds"


@dataclass(frozen=True)
class Curve:
    """One point per epoch at which every run was evaluated.

    ``seconds`` is the runs' mean training time up to there, without evaluation; empty where a run did not record it. ``std`` is
    zero for a single run.
    """

    epochs: list[float]
    seconds: list[float]
    mean: list[float]
    std: list[float]
    count: int


def curve(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> Curve | None:
    """``metric`` over the records of several ``runs``; None where no epoch has it in all of those that recorded it at all."""
    held = [{record["epoch"]: record for record in records if metric in record} for records in runs]
    held = [records for records in held if records]
    if not held:
        return None
    epochs = sorted(set.intersection(*(set(records) for records in held)))
    if not epochs:
        return None
    values = [statistic([records[epoch][metric] for records in held]) for epoch in epochs]
    timed = all(TIME in records[epoch] for records in held for epoch in epochs)
    seconds = [sum(records[epoch][TIME] for records in held) / len(held) for epoch in epochs] if timed else []
    return Curve(
        epochs=epochs,
        seconds=seconds,
        mean=[value.mean for value in values if value],
        std=[value.std or 0.0 for value in values if value],
        count=len(held),
    )
