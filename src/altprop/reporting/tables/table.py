"""A table as data, independent of the form in which it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Column:
    """The head of a column.

    Args:
        title: The title.
        numeric: Whether the column contains numbers, which are aligned right; words are aligned left.
        wraps: Whether a terminal may break the column's cells into several lines.
    """

    title: str
    numeric: bool = True
    wraps: bool = True


class Cell(NamedTuple):
    """A cell: its text, and the number that the text stands for; None for words and missing numbers."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; :mod:`altprop.reporting.tables.render` writes it for terminals and as Markdown, LaTeX and CSV.

    Args:
        columns: The heads of the columns.
        rows: The cells, in the order of ``columns``.
        title: The heading above the table; empty for none.
        notes: Sentences about the whole table.
        messages: Lines about single runs, listed below the notes.
        records: Raw values in full precision for programs, by name. Each is a line of the CSV file; they need not correspond
            to ``rows``.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    notes: Sequence[str] = ()
    messages: Sequence[str] = ()
    records: Sequence[Mapping[str, Any]] = ()
