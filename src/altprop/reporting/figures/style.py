"""The common style of all figures: colors that color-blind readers can distinguish, font sizes, and atomic saving."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from altprop.files import write_atomically
from altprop.fonts import STANDARD, families_for, readable

# The palette of Okabe and Ito.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
INK, GRAY, FAINT = "#222222", "#777777", "#e4e4e4"

SPLIT_COLORS: Mapping[str, str] = {"train": BLUE, "train_plain": SKY, "validation": VERMILLION, "test": GREEN}
SEQUENTIAL = "Blues"
DOTS_PER_INCH = 150

_STYLE: Any = {
    "font.family": STANDARD,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.parse_math": False,  # class names may contain a $
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def styled() -> Any:
    """A context in which figures are created and saved in altprop's style, independently of the user's matplotlibrc."""
    return rc_context(_STYLE)


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` to ``path`` as PNG, atomically, and return ``path``. Every text gets a font that has its letters."""
    _choose_fonts(figure)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DOTS_PER_INCH))
    return path


def _choose_fonts(figure: Artist) -> None:
    for text in figure.findobj(Text):
        content = text.get_text()
        if not content.isascii():
            text.set_text(readable(content))
            text.set_fontfamily(families_for(content))


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write the labels in ``ends`` (label -> height in data units, color) at the right edge without overlaps."""
    figure = axes.figure
    _choose_fonts(figure)
    figure.canvas.draw()  # determines the limits and the layout, in which distances are measured
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    line_height = 12 / height
    to_fraction = axes.transData + axes.transAxes.inverted()
    heights = {label: float(to_fraction.transform((axes.get_xlim()[1], value))[1]) for label, (value, _) in ends.items()}
    for label, position in spread(heights, line_height).items():
        axes.annotate(
            label,
            (1.0, position),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=ends[label][1],
            annotation_clip=False,
        )


def spread(positions: Mapping[str, float], distance: float) -> dict[str, float]:
    """Move ``positions`` apart so that neighbors are at least ``distance`` apart; their order is preserved.

    A simple sweep keeps the moves small.
    """
    names = sorted(positions, key=lambda name: positions[name])
    # Each cluster of labels that touch is centered on the mean of its members' positions.
    clusters: list[list[str]] = []
    centers: list[float] = []
    for name in names:
        clusters.append([name])
        centers.append(positions[name])
        while len(clusters) > 1 and centers[-1] - centers[-2] < distance * (len(clusters[-1]) + len(clusters[-2])) / 2:
            merged = clusters[-2] + clusters[-1]
            clusters[-2:] = [merged]
            centers[-2:] = [sum(positions[member] for member in merged) / len(merged)]
    return {
        name: center + distance * (rank - (len(cluster) - 1) / 2)
        for cluster, center in zip(clusters, centers)
        for rank, name in enumerate(cluster)
    }
