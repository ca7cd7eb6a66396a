"""The text around the tables: what their numbers mean, how many runs there are, and notes on single runs and rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from altprop.reporting.rows import COMPARABLE, Row
from altprop.reporting.runs import Run, Unreadable
from altprop.reporting.tables.columns import MIXED

LEFT_OUT = "weights/left_out/"
"""Beginning of the metrics that name such weights; their values are numbers of weights."""
MEANING = {
    "last": "the last epoch",
    "selected": "the epoch that each run selected (by the validation split, unless configured otherwise)",
    "best": "the best epoch of the reported metric itself, which is optimistic if it is measured on the test split",
}


def notes(rows: Sequence[Row]) -> list[str]:
    """Sentences that explain the numbers of the table of results."""
    return [
        "Numbers are means ± standard deviations (n - 1) over the seeds of finished runs; accuracies are in percent.",
        " ".join(f"{name.capitalize()}: {MEANING[name]}." for name in COMPARABLE),
        f"The interval is the 95 % interval of the mean of the {rows[0].compared} epoch (Student's t); the difference is ours "
        "minus the paper's; inside says whether the paper's value is in the interval.",
        "The paper's value is that of the unchanged experiment in conf/experiment. A row that the command line changed (fewer "
        "epochs, other data) is shown next to the same value, with what was changed.",
    ]


def mixed_rows(rows: Sequence[Row]) -> list[str]:
    """One line for each row whose runs were made by different code or with different numbers of threads."""
    lines = []
    for row in rows:
        for name in filter(None, row.mixed.split(" and ")):
            values = ", ".join(f"seed {run.seed}: {getattr(run, name) or 'not recorded'}" for run in row.finished)
            lines.append(f"mixed {name} ({MIXED}): {row.label}: {values}")
    return lines


def messages_about_runs(rows: Sequence[Row], unreadable: Sequence[Unreadable], outputs: Path) -> list[str]:
    """One line for each run that failed, with its error; is unfinished, with its status; stopped early; or is unreadable.

    And one for each row with weights to which its weights rule did not apply.
    """
    lines = [
        f"failed: {_name(run, outputs)}: {run.error or 'no reason recorded'}, after {_progress(run)}"
        for row in rows
        for run in row.failed
    ]
    lines += [
        f"unfinished: {_name(run, outputs)}: {run.status}, {_progress(run)}"
        + (f", last updated {run.updated}" if run.updated else "")
        for row in rows
        for run in row.unfinished
    ]
    lines += [f"{run.stopped_early}: {_name(run, outputs)}" for row in rows for run in row.finished if run.stopped_early]
    lines += [f"left out by the weights rule: {row.label}: {names}" for row in rows if (names := left_out(row))]
    return lines + [f"not counted: {_relative(entry.path, outputs)}: {entry.reason}" for entry in unreadable]


def left_out(row: Row) -> str:
    """The names and sizes of the weights to which the weights rule of ``row`` did not apply, as its runs recorded them."""
    sizes = {
        name.removeprefix(LEFT_OUT): value
        for run in row.finished
        for name, value in (run.records[-1] if run.records else {}).items()
        if name.startswith(LEFT_OUT)
    }
    return ", ".join(f"{name} ({value:,.0f} weights)" for name, value in sizes.items())


def summary(rows: Sequence[Row], unreadable: Sequence[Unreadable]) -> str:
    """The number of rows and of runs by status."""
    counts = {
        "finished": sum(len(row.finished) for row in rows),
        "unfinished": sum(len(row.unfinished) for row in rows),
        "failed": sum(len(row.failed) for row in rows),
        "not readable": len(unreadable),
    }
    noun = "row" if len(rows) == 1 else "rows"
    return f"{len(rows)} {noun}; runs: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _name(run: Run, outputs: Path) -> str:
    return f"{_relative(run.path, outputs)} (seed {run.seed})"


def _relative(path: Path, outputs: Path) -> str:
    return str(path.relative_to(outputs)) if path.is_relative_to(outputs) else str(path)


def _progress(run: Run) -> str:
    total = f" of {run.total_epochs:g}" if run.total_epochs is not None else ""
    return f"{run.epoch:g}{total} epochs"
