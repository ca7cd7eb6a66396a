"""Learning curves: a metric over the course of training, averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.statistics import statistic

TIME, FLOPS = "time/train_seconds", "cost/flops"


@dataclass(frozen=True)
class Curve:
    """The mean of a metric over runs, with one point per epoch at which every run was evaluated.

    ``seconds`` is the runs' mean training time up to each point, without evaluation, and ``flops`` their mean number of
    floating-point operations; either is empty if a run did not record it. ``std`` is zero for a single run.
    """

    epochs: list[float]
    seconds: list[float]
    flops: list[float]
    mean: list[float]
    std: list[float]
    count: int


def mean_curve(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> Curve | None:
    """The curve of ``metric`` over the records of several ``runs``.

    Runs that never recorded ``metric`` are ignored. None if no epoch has a value from every remaining run.
    """
    evaluations = [{record["epoch"]: record for record in records if metric in record} for records in runs]
    evaluations = [records for records in evaluations if records]
    if not evaluations:
        return None
    epochs = sorted(set.intersection(*(set(records) for records in evaluations)))
    if not epochs:
        return None
    values = [statistic([records[epoch][metric] for records in evaluations]) for epoch in epochs]

    def means(cost: str) -> list[float]:
        if not all(cost in records[epoch] for records in evaluations for epoch in epochs):
            return []
        return [sum(records[epoch][cost] for records in evaluations) / len(evaluations) for epoch in epochs]

    return Curve(
        epochs=epochs,
        seconds=means(TIME),
        flops=means(FLOPS),
        mean=[value.mean for value in values if value],
        std=[value.std or 0.0 for value in values if value],
        count=len(evaluations),
    )
