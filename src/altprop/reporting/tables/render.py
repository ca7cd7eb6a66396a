"""The rows of a report as text: terminal, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from altprop.reporting.collect import WHICH, Row
from altprop.reporting.runs import Run, Unreadable
from altprop.reporting.tables import milestones
from altprop.reporting.tables.columns import AGAINST, CHANGED, COSTS, DASH, PRINTED, RESULTS, WORDY, Column, columns_for, plain
from altprop.reporting.tables.milestones import Milestone
from altprop.reporting.tables.side_by_side import Comparison, cells

EQUAL = "Side by side at equal cost"
WORDS = ("experiment", "algorithm", "metric", CHANGED)
"""Titles of the smaller tables' columns that hold words, not numbers."""
ON_THE_WAY = "On the way: published values after some epochs"

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    DASH: "--",
}
MEANING = {
    "last": "the last epoch",
    "selected": "the epoch that each run's own selection chose (the validation split, unless the run says otherwise)",
    "best": "the best epoch of the reported metric itself, which is optimistic where that is the test split",
}


def notes(rows: Sequence[Row]) -> list[str]:
    """What the numbers of a table mean, in sentences."""
    compared = rows[0].compared
    return [
        "Numbers are means ± standard deviations (n - 1) over the seeds of finished runs; accuracies are in percent.",
        " ".join(f"{name.capitalize()}: {MEANING[name]}." for name in WHICH),
        f"The interval is the 95 % interval of the mean of the {compared} epoch (Student's t); the difference is ours minus the "
        "paper's, inside says whether the paper's value lies in the interval.",
        "The paper's value is that of the experiment as it stands in conf/experiment. A row that the command line changed (fewer "
        "epochs, other data) is still shown beside it, with what was changed.",
    ]


def troubles(rows: Sequence[Row], unreadable: Sequence[Unreadable], outputs: Path) -> list[str]:
    """One line for each run that does not count: failed with its error, unfinished with its state, or unreadable."""
    lines = [
        f"failed: {_called(run, outputs)}: {run.error or 'no reason recorded'}, after {_progress(run)}"
        for row in rows
        for run in row.failed
    ]
    lines += [
        f"unfinished: {_called(run, outputs)}: {run.status}, {_progress(run)}"
        + (f", last sign {run.updated}" if run.updated else "")
        for row in rows
        for run in row.unfinished
    ]
    return lines + [f"not counted: {_relative(entry.path, outputs)}: {entry.reason}" for entry in unreadable]


def summary(rows: Sequence[Row], unreadable: Sequence[Unreadable]) -> str:
    """How many runs of which kind there are."""
    counts = {
        "finished": sum(len(row.finished) for row in rows),
        "unfinished": sum(len(row.unfinished) for row in rows),
        "failed": sum(len(row.failed) for row in rows),
        "not readable": len(unreadable),
    }
    noun = "row" if len(rows) == 1 else "rows"
    return f"{len(rows)} {noun}; runs: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """On a terminal: the results, below them what they are held against, and what the runs cost."""
    _print_columns(rows, columns_for(rows, RESULTS), console)
    for names in (AGAINST, COSTS):
        columns = columns_for(rows, names)
        telling = [row for row in rows if any(column.text(row) not in ("", DASH) for column in columns)]
        if telling:
            console.print()
            _print_columns(telling, [*columns_for(rows, ("experiment",)), *columns], console)


def _print_columns(rows: Sequence[Row], columns: Sequence[Column], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.title,
            justify="left" if column.number is None else "right",
            overflow="fold",
            no_wrap=column.name not in WORDY,
        )
    for row in rows:
        table.add_row(*(column.text(row) for column in columns))
    console.print(table, markup=False, highlight=False)


def markdown(rows: Sequence[Row], extra: Sequence[str] = ()) -> str:
    """Every column as a Markdown table, with notes and the ``extra`` lines below it."""
    columns = columns_for(rows)
    lines = [
        _markdown_line([column.title for column in columns]),
        "|" + "|".join("---" if column.number is None else "---:" for column in columns) + "|",
        *(_markdown_line([column.text(row) for column in columns]) for row in rows),
        "",
        *(line + "\n" for line in notes(rows)),
        *(f"- {line}" for line in extra),
    ]
    return "\n".join(lines).rstrip() + "\n"


def print_lines(heading: str, titles: Sequence[str], lines: Sequence[Sequence[str]], console: Console) -> None:
    """A table on a terminal under its heading."""
    console.print(f"\n{heading}", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title in WORDS else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table, markup=False, highlight=False)


def markdown_lines(heading: str, titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same as Markdown."""
    rule = "|" + "|".join("---" if title in WORDS else "---:" for title in titles) + "|"
    return "\n".join(["", f"### {heading}", "", _markdown_line(titles), rule, *map(_markdown_line, lines), ""])


def latex_lines(comments: Sequence[str], titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same as a ``tabular`` under ``comments``."""
    head, *body = [" & ".join(map(escape, line)) + r" \\" for line in (titles, *lines)]
    begin = rf"\begin{{tabular}}{{{''.join('l' if title in WORDS else 'r' for title in titles)}}}"
    parts = ["", *(f"% {comment}" for comment in comments), begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}", ""])


def print_milestones(found: Sequence[Milestone], console: Console) -> None:
    """Published values on the way on a terminal; nothing without any."""
    if found:
        print_lines(ON_THE_WAY, *milestones.cells(found), console)


def markdown_milestones(found: Sequence[Milestone]) -> str:
    """The same as Markdown."""
    return markdown_lines(ON_THE_WAY, *milestones.cells(found)) if found else ""


def latex_milestones(found: Sequence[Milestone]) -> str:
    """The same as a ``tabular``."""
    return latex_lines([ON_THE_WAY], *milestones.cells(found)) if found else ""


def print_comparisons(found: Sequence[Comparison], console: Console) -> None:
    """Side by side on a terminal."""
    for comparison in found:
        print_lines(_heading(comparison), *cells(comparison), console)
        for remark in comparison.remarks:
            console.print(remark, markup=False, highlight=False, soft_wrap=True)


def markdown_comparisons(found: Sequence[Comparison]) -> str:
    """Side by side as Markdown, a table for each; empty without any."""
    parts = [
        markdown_lines(_heading(comparison), *cells(comparison)) + "".join(f"\n{remark}\n" for remark in comparison.remarks)
        for comparison in found
    ]
    return "".join(parts)


def latex_comparisons(found: Sequence[Comparison]) -> str:
    """Side by side, a ``tabular`` for each; empty without any."""
    return "".join(latex_lines([_heading(each), *each.remarks], *cells(each)) for each in found)


def _heading(comparison: Comparison) -> str:
    return f"{EQUAL}: {comparison.title}, {comparison.metric}"


def csv_table(rows: Sequence[Row]) -> str:
    """Every number in full, one line per row."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(plain(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows([plain(row) for row in rows])
    return stream.getvalue()


def latex(rows: Sequence[Row], extra: Sequence[str] = ()) -> str:
    """A ``tabular`` for ``booktabs``, with the meaning of its numbers and the ``extra`` lines as comments above it."""
    columns = columns_for(rows, PRINTED)
    lines = [
        *(f"% {' '.join(line.split())}" for line in (*notes(rows), *extra)),
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('l' if column.number is None else 'r' for column in columns)}}}",
        r"\toprule",
        " & ".join(escape(column.title) for column in columns) + r" \\",
        r"\midrule",
        *(" & ".join(escape(column.text(row)) for column in columns) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """``text`` for LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"


def _called(run: Run, outputs: Path) -> str:
    return f"{_relative(run.path, outputs)} (seed {run.seed})"


def _relative(path: Path, outputs: Path) -> str:
    return str(path.relative_to(outputs)) if path.is_relative_to(outputs) else str(path)


def _progress(run: Run) -> str:
    total = f" of {run.total_epochs:g}" if run.total_epochs is not None else ""
    return f"{run.epoch:g}{total} epochs"
