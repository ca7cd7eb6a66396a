"""The report as one HTML file that works offline: tables to sort and filter, and curves drawn by the embedded plotly.js."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from altprop.reporting.comparisons import Comparison
from altprop.reporting.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION
from altprop.reporting.milestones import Milestone
from altprop.reporting.rows import Row
from altprop.reporting.searches import Search
from altprop.reporting.tables.build import comparison_table, milestone_tables, results_table, search_tables
from altprop.reporting.tables.columns import EMPTY
from altprop.reporting.tables.notes import notes
from altprop.reporting.tables.table import Cell, Column, Table

COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Curves use every color with the first of these, then every color with the second, and so on."""
TEMPLATES = Path(__file__).parent


def has_plotly() -> bool:
    """Whether plotly, which contains the page's charting library, is installed."""
    return find_spec("plotly") is not None


def html_page(
    rows: Sequence[Row],
    summary: str,
    messages: Sequence[str],
    comparisons: Sequence[Comparison] = (),
    milestones: Sequence[Milestone] = (),
    figures: Mapping[str, Path] | None = None,
    columns: Sequence[str] | None = None,
    searches: Sequence[Search] = (),
) -> str:
    """The whole page.

    Args:
        rows: The rows of the report.
        summary: The sentence below the heading.
        messages: Lines about single runs and rows: failed, unfinished, not counted, mixed.
        comparisons: Comparisons at equal cost.
        milestones: Published values after some epochs and ours.
        figures: PNG files to embed, by title.
        columns: Names of the columns to show; None shows all.
        searches: Sweeps with a search.

    Raises:
        ImportError: If plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    data = {
        **page_data(rows, summary, messages, columns),
        "comparisons": [{**_table_data(comparison_table(each)), "title": f"{each.title}, {each.metric}"} for each in comparisons],
        "tables": [_table_data(table) for table in (*search_tables(searches), *milestone_tables(milestones))],
        "figures": [
            {"title": title, "png": base64.b64encode(path.read_bytes()).decode()} for title, path in (figures or {}).items()
        ],
    }
    parts = {
        "/*STYLE*/": (TEMPLATES / "page.css").read_text(),
        "/*PLOTLY*/": get_plotlyjs(),
        "/*DATA*/": script_json(data),
        "/*SCRIPT*/": (TEMPLATES / "page.js").read_text(),
    }
    rest = (TEMPLATES / "page.html").read_text()
    pieces = []
    for marker, content in parts.items():  # in the order of the page, so that no part is searched for the other parts' markers
        before, _, rest = rest.partition(marker)
        pieces += [before, content]
    return "".join([*pieces, rest])


def script_json(value: Any) -> str:
    """``value`` as JSON for a ``<script>`` element, escaped such that nothing in it can end the element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def page_data(rows: Sequence[Row], summary: str, messages: Sequence[str], columns: Sequence[str] | None = None) -> dict[str, Any]:
    """The data of the main table and the curves for the page's script; None for numbers that are not finite."""
    table = results_table(rows, columns)
    counts: Counter[str] = Counter()
    entries = []
    for index, (row, cells) in enumerate(zip(rows, table.rows, strict=True)):
        counts[row.label] += 1
        entries.append(
            {
                "label": row.label if counts[row.label] == 1 else f"{row.label} ({counts[row.label]})",
                "metric": row.metric,
                "color": COLORS[index % len(COLORS)],
                "dash": DASHES[index // len(COLORS) % len(DASHES)],
                "text": [cell.text for cell in cells],
                "value": [_sort_value(column, cell) for column, cell in zip(table.columns, cells, strict=True)],
                "curve": None if row.curve is None else {name: _finite(value) for name, value in vars(row.curve).items()},
                "published": row.paper.milestones.get(row.metric, []) if row.paper else [],
            }
        )
    return {
        "summary": summary,
        "notes": notes(rows),
        "messages": list(messages),
        "columns": [vars(column) for column in table.columns],
        "rows": entries,
    }


def _table_data(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [vars(column) for column in table.columns],
        "rows": [[cell.text for cell in row] for row in table.rows],
        "notes": list(table.notes),
    }


def _sort_value(column: Column, cell: Cell) -> float | str | None:
    if column.numeric:
        return _finite(cell.number)
    return None if cell.text in EMPTY else cell.text


def _finite(value: Any) -> Any:
    """``value``, a number or a list of numbers, with None for numbers that are not finite."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
