"""The figures and summaries of one run, as far as its records contain the data for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from altprop.files import write_json
from altprop.reporting import binary_accuracies
from altprop.reporting.figures.alignment import draw_alignment
from altprop.reporting.figures.binarization import draw_timeline
from altprop.reporting.figures.sparse import draw_layers, draw_structure
from altprop.reporting.figures.standard import draw_curves

Records = Sequence[Mapping[str, Any]]

FIGURES: dict[str, Callable[..., Path | None]] = {
    "curves": draw_curves,
    "timeline": draw_timeline,
    "structure": draw_structure,
    "layers": draw_layers,
    "alignment": draw_alignment,
}
"""``(records, path, title=…) -> path``, or None if the records do not contain the figure's data."""


def draw(records: Records, folder: Path, *, title: str = "") -> list[Path]:
    """Draw into ``folder`` every figure for which ``records`` contain the data; return the paths."""
    paths = (function(records, folder / f"{name}.png", title=title) for name, function in FIGURES.items())
    return [path for path in paths if path is not None]


def write_summaries(records: Records, sizes: Mapping[str, tuple[int, int]], directory: Path) -> None:
    """Write ``binary_accuracies.json`` into ``directory`` if layers became binary during the run.

    ``sizes`` maps every evaluated split to its number of samples and its mini-batch size.
    """
    if binary_accuracies.binarizations(records):
        write_json(directory / "binary_accuracies.json", binary_accuracies.summary(records, sizes))
