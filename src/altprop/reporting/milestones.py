"""Milestones: values that a paper's own runs had reached after some epochs, and what our runs had by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from altprop.reporting.rows import Row
from altprop.reporting.statistics import Statistic, statistic


@dataclass(frozen=True)
class Milestone:
    """A published value of ``metric`` after ``epoch`` epochs, and the value of a row's runs that have come this far.

    Unfinished runs count, because their value after this epoch is final; failed runs do not.
    """

    row: Row
    metric: str
    epoch: float
    published: float
    ours: Statistic
    changed: str
    """What the command lines of all these runs changed in the experiment."""


def milestones(rows: Sequence[Row]) -> list[Milestone]:
    """The milestones that at least one run has reached, in the order of ``rows``, metrics and epochs."""
    reached = []
    for row in rows:
        runs = [*row.finished, *row.unfinished]
        records = [{record["epoch"]: record for record in run.records} for run in runs]
        changed = " ".join(sorted({word for run in runs for word in run.changed}))
        for metric, points in (row.paper.milestones if row.paper else {}).items():
            for epoch, published in points:
                ours = statistic([by_epoch[epoch][metric] for by_epoch in records if metric in by_epoch.get(epoch, ())])
                if ours is not None:
                    reached.append(Milestone(row, metric, epoch, published, ours, changed))
    return reached
