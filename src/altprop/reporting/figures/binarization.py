"""Figures of iterative binarization: accuracy with the moments at which layers become binary, and layer sensitivities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from altprop.reporting.binary_accuracies import Accuracies, accuracies, binarizations
from altprop.reporting.figures.standard import Series, series_of
from altprop.reporting.figures.style import BLUE, GRAY, ORANGE, SPLIT_COLORS, label_ends, save, styled
from altprop.reporting.sensitivity import ascending_order

NUMBERED_MOMENTS = 12
"""Up to this many moments are labeled with the number of binary layers."""


def draw_timeline(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Draw accuracy (percent) over epochs for every split, with a vertical line where a layer becomes binary.

    The caption states the three accuracies of the test split (see :mod:`altprop.reporting.binary_accuracies`). The vertical axis
    leaves out the lowest tenth of the values, so that a collapse right after a binarization does not flatten the rest. Draws
    nothing and returns None if the records contain nothing about binary layers.
    """
    records = list(records)
    moments = binarizations(records)
    curves = series_of(records, "accuracy")
    if not moments or not curves:
        return None
    with styled():
        figure = Figure(figsize=(7.2, 3.6))
        axes = figure.subplots()
        for split, (epochs, values) in curves.items():
            axes.plot(epochs, values, color=SPLIT_COLORS[split], marker="o" if len(epochs) <= 20 else None, markersize=3)
        _limit(axes, curves)
        _mark(axes, moments, _num_layers(records))
        axes.set_xlabel(_caption(records, curves))
        axes.set_ylabel("accuracy (percent)")
        axes.set_title(title or "Accuracy while layers become binary", pad=18)
        ends = {f"{split} {values[-1]:.2f}": (values[-1], SPLIT_COLORS[split]) for split, (_, values) in curves.items()}
        label_ends(axes, ends)
        return save(figure, path)


def _limit(axes: Axes, curves: Mapping[str, Series]) -> None:
    everything = sorted(value for _, values in curves.values() for value in values)
    low, high = everything[len(everything) // 10], everything[-1]
    margin = max(0.1 * (high - low), 0.1)
    axes.set_ylim(low - margin, min(100.0, high + margin))
    axes.set_xlim(left=0)


def _mark(axes: Axes, moments: Sequence[tuple[float, int]], layers: int) -> None:
    for epoch, count in moments:
        axes.axvline(epoch, color=GRAY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if len(moments) <= NUMBERED_MOMENTS:
            text = f"{count} of {layers} binary" if len(moments) <= 4 else str(count)
            axes.annotate(
                text, (epoch, 1.0), xycoords=("data", "axes fraction"), xytext=(1, 2), textcoords="offset points",
                ha="left", va="bottom", fontsize=7.5, color=GRAY,
            )  # fmt: skip


def _num_layers(records: Iterable[Mapping[str, Any]]) -> int:
    return next(
        sum(name.startswith("weights/binary/") for name in record) for record in records if "weights/binary_layers" in record
    )


def _caption(records: Sequence[Mapping[str, Any]], curves: Mapping[str, Series]) -> str:
    split = "test" if "test" in curves else next(iter(curves))
    return f"epoch\n{split}: {describe(accuracies(records, split))}"


def describe(values: Accuracies) -> str:
    """The three accuracies in words."""
    binary = values.best_fully_binary
    fully = "never fully binary" if binary is None else f"best fully binary {binary.value:.2f} (epoch {binary.epoch:g})"
    return f"last {values.last.value:.2f}, {fully}, best of all epochs {values.best.value:.2f} (epoch {values.best.epoch:g})"


def draw_sensitivity(layers: Sequence[str], means: Sequence[float], path: Path, *, metric: str, title: str = "") -> Path:
    """Draw the error (percent) of the network with one binary layer, a bar for each layer in forward order with its rank above.

    ``means`` are the accuracies in percent, one per name in ``layers``. The least sensitive layer has rank 1 and is binarized
    first.
    """
    ranks = {place: rank for rank, place in enumerate(ascending_order(means), start=1)}
    errors = [100.0 - accuracy for accuracy in means]
    places = range(1, len(layers) + 1)
    with styled():
        figure = Figure(figsize=(max(4.2, 0.5 * len(layers) + 1.2), 3.4))
        axes = figure.subplots()
        middle = (len(layers) + 1) / 2
        bars = axes.bar(places, errors, width=0.7, color=[BLUE if ranks[place] <= middle else ORANGE for place in places])
        axes.bar_label(
            bars, [f"{ranks[place]}.\n{error:.2f}" for place, error in zip(places, errors)], padding=2, fontsize=8, color=GRAY
        )
        axes.margins(y=0.18)
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xticks(list(places), [f"{place}  {name}" for place, name in zip(places, layers)], rotation=40, ha="right")
        axes.set_ylabel(f"{metric.split('/')[0]} error (percent)")
        axes.set_title(title or "One layer binary: rank and error")
        return save(figure, path)
