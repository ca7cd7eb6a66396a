"""A metric through training, over seeds: what the report's curves show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.statistics import statistic

TIME, FLOPS = "time/train_seconds", "cost/flops"


@dataclass(frozen=True)
class Curve:
    """One point per epoch at which every run was evaluated.

    ``seconds`` is the runs' mean training time up to there, without evaluation, ``flops`` the mean of their floating-point
    operations; either is empty where a run did not record it. ``std`` is zero for a single run.
    """

    epochs: list[float]
    seconds: list[float]
    flops: list[float]
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

    def means(cost: str) -> list[float]:
        known = all(cost in records[epoch] for records in held for epoch in epochs)
        return [sum(records[epoch][cost] for records in held) / len(held) for epoch in epochs] if known else []

    return Curve(
        epochs=epochs,
        seconds=means(TIME),
        flops=means(FLOPS),
        mean=[value.mean for value in values if value],
        std=[value.std or 0.0 for value in values if value],
        count=len(held),
    )
