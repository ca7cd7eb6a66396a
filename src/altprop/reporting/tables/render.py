"""The four forms of a table: terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable

from altprop.reporting.tables.columns import DASH
from altprop.reporting.tables.table import Table

FORMULA = ("=", "+", "-", "@", "\t")
"""Beginnings of text that spreadsheets execute."""
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
    "°": r"$^\circ$",
    DASH: "--",
}


def print_table(table: Table, console: Console) -> None:
    """Print ``table`` on a terminal, with its title above it and its notes and messages below it."""
    if table.title:
        console.print(table.title, markup=False, highlight=False)
    grid = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        grid.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold", no_wrap=not column.wraps)
    for row in table.rows:
        grid.add_row(*(cell.text for cell in row))
    console.print(grid, markup=False, highlight=False)
    for line in (*table.notes, *table.messages):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def markdown(tables: Iterable[Table]) -> str:
    """``tables`` as Markdown, each with its title above it and its notes and messages below it."""
    return "\n".join(map(_markdown_table, tables))


def _markdown_table(table: Table) -> str:
    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    heading = [f"### {_without_html(table.title)}\n"] if table.title else []
    body = [_markdown_line(column.title for column in table.columns), rule]
    body += [_markdown_line(cell.text for cell in row) for row in table.rows]
    messages = ["", *(f"- {_without_html(message)}" for message in table.messages)] if table.messages else []
    return "\n".join([*heading, *body, *(f"\n{_without_html(note)}" for note in table.notes), *messages]) + "\n"


def _markdown_line(texts: Iterable[str]) -> str:
    cells = (" ".join(_without_html(text).split()).replace("\\", "\\\\").replace("|", "\\|") for text in texts)
    return "| " + " | ".join(cells) + " |"


def _without_html(text: str) -> str:
    """``text`` in which ``<`` cannot begin an HTML tag, because names and messages may come from somebody else's runs."""
    return text.replace("<", "&lt;")


def latex(tables: Iterable[Table]) -> str:
    """``tables`` as LaTeX: a ``tabular`` for ``booktabs`` each, below its title, notes and messages as comments."""
    return "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    comments = [*([table.title] if table.title else []), *table.notes, *table.messages]
    lines = [
        *(f"% {' '.join(comment.split())}" for comment in comments),
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in table.columns)}}}",
        r"\toprule",
        _latex_line(column.title for column in table.columns),
        r"\midrule",
        *(_latex_line(cell.text for cell in row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(texts: Iterable[str]) -> str:
    return " & ".join(map(latex_text, texts)) + r" \\"


def latex_text(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return "".join(LATEX.get(character, character) for character in text)


def csv_text(tables: Sequence[Table]) -> str:
    """The raw values of ``tables`` as one CSV file, below one header; all records must have the same names."""
    records = [record for table in tables for record in table.records]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _without_formula(value) for name, value in record.items()} for record in records)
    return stream.getvalue()


def _without_formula(value: object) -> object:
    """``value``, after an apostrophe if it is text that a spreadsheet would execute as a formula."""
    if not isinstance(value, str):
        return value
    line = value.replace("\r", " ")  # which Python's own reader would refuse
    return f"'{line}" if line.startswith(FORMULA) else line
