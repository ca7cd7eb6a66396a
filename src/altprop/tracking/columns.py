"""The table of epochs: columns, widths and formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.text import Text

GAP = "  "


@dataclass(frozen=True)
class Column:
    """One metric of the table. ``form`` is a format specification, or ``"time"`` for seconds displayed as h:mm:ss."""

    name: str
    title: str
    width: int
    form: str

    def text(self, value: float) -> str:
        """Return ``value`` as displayed in the table."""
        return str(timedelta(seconds=int(value))) if self.form == "time" else format(value, self.form)


COLUMNS = (
    Column("epoch", "epoch", 6, "g"),
    Column("train/loss", "train loss", 10, ".4f"),
    Column("train/accuracy", "train %", 7, ".2f"),
    Column("validation/accuracy", "validation %", 12, ".2f"),
    Column("test/accuracy", "test %", 7, ".2f"),
    Column("train/learning_rate", "rate", 8, ".3g"),
    Column("time/images_per_second", "images/s", 9, ",.0f"),
    Column("time/elapsed", "time", 8, "time"),
)
"""The main metrics. Others (for example one accuracy per local head) are in the metrics file only."""


def columns_of(metrics: Iterable[str]) -> tuple[Column, ...]:
    """:data:`COLUMNS` with those of the run's own ``metrics`` on the validation and the test split."""
    own = [f"{split}/{name}" for name in metrics for split in ("validation", "test")]
    titles = {name: name.replace("/", " ") for name in own}
    columns = [Column(name, title, max(8, len(title)), ".5g") for name, title in titles.items()]
    end = [column.name for column in COLUMNS].index("train/learning_rate")
    return (*COLUMNS[:end], *columns, *COLUMNS[end:])


def is_evaluation(record: Mapping[str, float]) -> bool:
    """Return whether ``record`` contains a result on the validation or test split."""
    return any(name.startswith(("validation/", "test/")) for name in record)


def header(columns: Iterable[Column]) -> Text:
    """Return the titles, aligned like the rows."""
    return Text(GAP.join(column.title.rjust(column.width) for column in columns), style="bold", no_wrap=True)


def row(columns: Sequence[Column], values: Mapping[str, float], best: bool) -> Text:
    """Return one row. ``best`` highlights the validation accuracy, or the test accuracy if there is no validation split."""
    names = [column.name for column in columns]
    highlighted = "validation/accuracy" if "validation/accuracy" in names else "test/accuracy"
    text = Text(no_wrap=True)
    for column in columns:
        value = values.get(column.name)
        cell = ("" if value is None else column.text(value)).rjust(column.width)
        text.append(GAP if text else "").append(cell, style="bold green" if best and column.name == highlighted else "")
    return text
