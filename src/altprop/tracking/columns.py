"""The table of epochs: its columns, their widths and formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.text import Text

GAP = "  "


@dataclass(frozen=True)
class Column:
    """One metric of the table. ``form`` is a format specification, or ``"time"`` for seconds shown as h:mm:ss."""

    name: str
    title: str
    width: int
    form: str

    def text(self, value: float) -> str:
        """``value`` as it stands in the table."""
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
"""The main metrics. Others (one accuracy per local head, say) are in the metrics file, not on the screen."""


def is_evaluation(record: Mapping[str, float]) -> bool:
    """Whether ``record`` holds a result on a validation or test split."""
    return any(name.startswith(("validation/", "test/")) for name in record)


def header(columns: Iterable[Column]) -> Text:
    """The titles, aligned as the rows are."""
    return Text(GAP.join(column.title.rjust(column.width) for column in columns), style="bold", no_wrap=True)


def row(columns: Sequence[Column], values: Mapping[str, float], best: bool) -> Text:
    """One row; ``best`` marks the accuracy that a person looks at, which is the validation split's where there is one."""
    names = [column.name for column in columns]
    marked = "validation/accuracy" if "validation/accuracy" in names else "test/accuracy"
    text = Text(no_wrap=True)
    for column in columns:
        value = values.get(column.name)
        cell = ("" if value is None else column.text(value)).rjust(column.width)
        text.append(GAP if text else "").append(cell, style="bold green" if best and column.name == marked else "")
    return text
