"""Published values on the way: what a paper's own runs had reached after some epochs, and what ours had by then."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from altprop.reporting.collect import Row
from altprop.reporting.statistics import Statistic, statistic
from altprop.reporting.tables.columns import CHANGED, experiment, spread


@dataclass(frozen=True)
class Milestone:
    """A published value of ``metric`` after ``epoch`` epochs, and that of a row's runs, over those that have come so far.

    A run counts whether it is finished or not, unless it failed: what it had after this epoch is settled.
    """

    row: Row
    metric: str
    epoch: float
    published: float
    ours: Statistic
    changed: str
    """What the command lines of all these runs changed of the experiment."""


def milestones(rows: Sequence[Row]) -> list[Milestone]:
    """Those that at least one run has reached, in the order of ``rows``, metrics and epochs."""
    found = []
    for row in rows:
        runs = [*row.finished, *row.unfinished]
        records = [{record["epoch"]: record for record in run.records} for run in runs]
        changed = " ".join(sorted({word for run in runs for word in run.changed}))
        for metric, points in (row.paper.milestones if row.paper else {}).items():
            for epoch, published in points:
                ours = statistic([by_epoch[epoch][metric] for by_epoch in records if metric in by_epoch.get(epoch, ())])
                if ours is not None:
                    found.append(Milestone(row, metric, epoch, published, ours, changed))
    return found


def cells(found: Sequence[Milestone]) -> tuple[list[str], list[list[str]]]:
    """Titles of the columns and the texts of the rows, for every kind of table; what was changed only where anything was."""
    titles = ["experiment", "metric", "epoch", "seeds", "ours", "paper", "difference", CHANGED]
    lines = [
        [
            *(experiment(each.row), each.metric, f"{each.epoch:g}", str(each.ours.count), spread(each.ours)),
            *(f"{each.published:g}", f"{each.ours.mean - each.published:+.2f}", each.changed),
        ]
        for each in found
    ]
    return (titles, lines) if any(each.changed for each in found) else (titles[:-1], [line[:-1] for line in lines])


def csv_milestones(found: Sequence[Milestone]) -> str:
    """Every number in full, one line each."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["experiment", "variant", "changed", "metric", "epoch", "count", "mean", "std", "paper", "difference"])
    for each in found:
        labels = [each.row.name, each.row.variant, each.changed, each.metric, each.epoch]
        ours = each.ours
        writer.writerow([*labels, ours.count, ours.mean, ours.std, each.published, ours.mean - each.published])
    return stream.getvalue()
