"""Figure of ``scaling.py``: time, FLOPs and memory over every axis, relative to the smallest setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from measuring import Row

from altprop.reporting.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILLION, save, styled

COLORS = {
    "backprop": BLUE,
    "decoupled greedy": ORANGE,
    "dynamic sparse": GREEN,
    "equilibrium propagation": VERMILLION,
    "backpropagation through time": PURPLE,
    "delayed gradients": SKY,
}
TITLES = {"T2": "relaxation steps (T2)", "batch": "mini-batch"}


def series(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return the rows by axis and subject."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        subject, _, _ = row.what.partition(", ")
        axis = row.baseline.rpartition(" ")[0]
        groups.setdefault(axis, {}).setdefault(subject, []).append(row)
    return groups


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw the figure of ``rows`` and write it to ``path``."""
    axes_rows = series(rows)
    with styled():
        figure = Figure(figsize=(2.6 * len(axes_rows), 5.6))
        grid = figure.subplots(2, len(axes_rows), squeeze=False)
        for column, (axis, subjects) in enumerate(axes_rows.items()):
            panel(grid[0][column], axis, subjects, "time")
            panel(grid[1][column], axis, subjects, "memory")
        grid[0][0].set_ylabel("time of a step / smallest setting")
        grid[1][0].set_ylabel("peak memory / smallest setting")
        names = dict.fromkeys(subject for group in axes_rows.values() for subject in group)
        handles = [grid[0][0].plot([], [], "o-", color=COLORS.get(name, GRAY), label=name)[0] for name in names]
        handles += grid[0][0].plot([], [], ":", color=GRAY, label="FLOPs of the same step")
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        return save(figure, path)


def panel(axes: object, axis: str, subjects: Mapping[str, Sequence[Row]], what: str) -> None:
    """Draw one axis of the sweep: ratios over the setting, both logarithmic."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    ticks: list[float] = []
    heights = [1.0]
    for subject, rows in subjects.items():
        settings = [rows[0].values["smallest setting"], *(row.values["setting"] for row in rows)]
        ticks = settings
        color = COLORS.get(subject, GRAY)
        ratios = [1.0, *(row.ratio if what == "time" else row.memory or 1.0 for row in rows)]
        axes.plot(settings, ratios, "o-", color=color, markersize=4)
        heights += ratios
        if what == "time":
            work = [1.0, *(row.flops or 1.0 for row in rows)]
            axes.plot(settings, work, ":", color=color)
            heights += work
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    bottom, top = min(0.75, min(heights) / 1.3), max(2.6, max(heights) * 1.3)
    powers = [2.0**power for power in range(-5, 12) if bottom <= 2.0**power <= top]
    axes.yaxis.set_major_locator(FixedLocator(powers[:: 1 + len(powers) // 7]))
    for side in (axes.xaxis, axes.yaxis):
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(bottom, top)
    if what == "time":
        axes.set_title(TITLES.get(axis, axis))
    else:
        axes.set_xlabel(axis)
