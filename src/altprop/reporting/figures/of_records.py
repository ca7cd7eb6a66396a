"""What a run's records alone allow to draw and to sum up: what they hold decides, nobody asks for a paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from altprop.files import write_json
from altprop.reporting import binary_accuracies
from altprop.reporting.figures.alignment import draw_alignment
from altprop.reporting.figures.binarization import binarizations, draw_timeline
from altprop.reporting.figures.run import draw_curves
from altprop.reporting.figures.sparse import draw_layers, draw_structure

Records = Sequence[Mapping[str, Any]]

FIGURES: dict[str, Callable[..., Path | None]] = {
    "curves": draw_curves,
    "timeline": draw_timeline,
    "structure": draw_structure,
    "layers": draw_layers,
    "alignment": draw_alignment,
}
"""``(records, path, title=…) -> path``, or None where the records say nothing about it."""


def draw(records: Records, folder: Path, *, title: str = "") -> list[Path]:
    """Every figure that ``records`` allow, into ``folder``."""
    paths = (function(records, folder / f"{name}.png", title=title) for name, function in FIGURES.items())
    return [path for path in paths if path is not None]


def write_summaries(records: Records, sizes: Mapping[str, tuple[int, int]], directory: Path) -> None:
    """Summaries beside the records. ``sizes`` are samples and mini-batch size of every evaluated split."""
    if binarizations(records):
        write_json(directory / "binary_accuracies.json", binary_accuracies.summary(records, sizes))
