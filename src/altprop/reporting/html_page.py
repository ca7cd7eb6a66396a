"""The report as one HTML file that needs no network: tables to sort and filter, curves drawn by plotly.js, all inside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from altprop.reporting.collect import Row
from altprop.reporting.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION
from altprop.reporting.tables.columns import DASH, WORDY, Column, columns_for, experiment
from altprop.reporting.tables.milestones import Milestone
from altprop.reporting.tables.render import ON_THE_WAY, WORDS, milestones, notes
from altprop.reporting.tables.side_by_side import Comparison, cells

COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Every color comes with the first of them, then every color with the second, and so on."""
TEMPLATES = Path(__file__).parent / "page"


def can_draw() -> bool:
    """Whether plotly, which brings the page's charting library, is installed."""
    return find_spec("plotly") is not None


def html_page(
    rows: Sequence[Row],
    summary: str,
    troubles: Sequence[str],
    compared: Sequence[Comparison] = (),
    reached: Sequence[Milestone] = (),
    figures: Mapping[str, Path] | None = None,
) -> str:
    """The whole page, with ``figures`` (title -> PNG file) inside it. Raises ``ImportError`` without plotly."""
    from plotly.offline import get_plotlyjs

    text = (TEMPLATES / "page.html").read_text()
    parts = {
        "/*STYLE*/": (TEMPLATES / "page.css").read_text(),
        "/*PLOTLY*/": get_plotlyjs(),
        "/*DATA*/": embedded(
            {
                **page_data(rows, summary, troubles),
                "comparisons": [_tables(entry) for entry in compared],
                "words": WORDS,
                "on_the_way": ON_THE_WAY,
                "milestones": dict(zip(("columns", "rows"), milestones.cells(reached), strict=True)),
                "figures": [
                    {"title": title, "png": base64.b64encode(path.read_bytes()).decode()}
                    for title, path in (figures or {}).items()
                ],
            }
        ),
        "/*SCRIPT*/": (TEMPLATES / "page.js").read_text(),
    }
    pieces = []
    for mark, content in parts.items():  # in the order of the page; no part is searched for the marks of the others
        before, _, text = text.partition(mark)
        pieces += [before, content]
    return "".join([*pieces, text])


def embedded(value: Any) -> str:
    """JSON that may stand inside a ``<script>`` element: nothing in it can end the element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def page_data(rows: Sequence[Row], summary: str, troubles: Sequence[str]) -> dict[str, Any]:
    """What the page's script shows; plain values, None for what is not finite."""
    columns = columns_for(rows)
    labels: dict[str, int] = {}
    shown = []
    for index, row in enumerate(rows):
        name = experiment(row)
        labels[name] = labels.get(name, 0) + 1
        shown.append(
            {
                "label": name if labels[name] == 1 else f"{name} ({labels[name]})",
                "metric": row.metric,
                "color": COLORS[index % len(COLORS)],
                "dash": DASHES[index // len(COLORS) % len(DASHES)],
                "text": [column.text(row) for column in columns],
                "value": [_sorted_by(column, row) for column in columns],
                "curve": None if row.curve is None else {name: _finite(value) for name, value in vars(row.curve).items()},
                "published": row.paper.milestones.get(row.metric, []) if row.paper else [],
            }
        )
    return {
        "summary": summary,
        "notes": notes(rows),
        "troubles": list(troubles),
        "columns": [
            {"title": column.title, "number": column.number is not None, "wordy": column.name in WORDY} for column in columns
        ],
        "rows": shown,
    }


def _tables(comparison: Comparison) -> dict[str, Any]:
    titles, lines = cells(comparison)
    return {
        "title": f"{comparison.title}, {comparison.metric}",
        "columns": titles,
        "rows": lines,
        "remarks": list(comparison.remarks),
    }


def _sorted_by(column: Column, row: Row) -> float | str | None:
    if column.number is not None:
        return _finite(column.number(row))
    text = column.text(row)
    return None if text in ("", DASH) else text


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
