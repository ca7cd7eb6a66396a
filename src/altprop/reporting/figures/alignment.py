"""The figure of the alignment probe: how well each layer's update agrees with the gradient during training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from altprop.reporting.figures.style import GRAY, label_ends, save, styled

ANGLE, NORM_RATIO = "alignment/angle/", "alignment/norm_ratio/"
NAMED_LAYERS = 16
"""With more layers than this, only every n-th one has a label."""

Series = tuple[list[float], list[float]]
"""Steps and values of one layer."""


def draw_alignment(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Draw the angle (degrees) and norm ratio between every layer's update and the gradient over training steps.

    The first layers are the darkest. Draws nothing and returns None if ``records`` (metrics.jsonl) contain no alignments.
    """
    records = list(records)
    angles, ratios = by_layer(records, ANGLE), by_layer(records, NORM_RATIO)
    if not angles:
        return None
    with styled():
        figure = Figure(figsize=(11.0, max(3.4, 1.0 + 0.18 * min(len(angles), NAMED_LAYERS))))
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=GRAY)
        left, right = figure.subplots(1, 2)
        left.axhline(90.0, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
        top = max(value for _, values in angles.values() for value in values)
        left.set_ylim(0, 180 if top > 120 else 120 if top > 90 else 95)
        left.set_yticks(range(0, 181 if top > 120 else 121 if top > 90 else 91, 30))
        _draw(left, angles, "Angle to the gradient (degrees)", "{:.3g}°")
        right.axhline(1.0, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
        right.set_yscale("log")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        right.yaxis.set_minor_formatter(NullFormatter())
        positive = {layer: series for layer, series in ratios.items() if min(series[1]) > 0}
        ends = [value for _, values in positive.values() for value in values]
        right.set_ylim(0.7 * min([*ends, 0.7]), 1.4 * max([*ends, 1.4]))
        _draw(right, positive, "|update| / |gradient|", "{:.3g}")
        return save(figure, path)


def by_layer(records: Iterable[Mapping[str, Any]], prefix: str) -> dict[str, Series]:
    """The finite values named ``<prefix><layer>`` and their steps, by layer in order of appearance."""
    layers: dict[str, Series] = {}
    for record in records:
        for name, value in record.items():
            if name.startswith(prefix) and math.isfinite(value):
                steps, values = layers.setdefault(name.removeprefix(prefix), ([], []))
                steps.append(record["step"])
                values.append(value)
    return layers


def _draw(axes: Axes, layers: Mapping[str, Series], title: str, form: str) -> None:
    colors = [to_hex(colormaps["viridis"](0.88 * place / max(1, len(layers) - 1))) for place in range(len(layers))]
    ends: dict[str, tuple[float, str]] = {}
    for (layer, (steps, values)), color in zip(layers.items(), colors):
        marker = "o" if len(steps) <= 20 else None
        axes.plot(steps, values, color=color, marker=marker, markersize=3, clip_on=False)
        ends[f"{layer} {form.format(values[-1])}"] = (values[-1], color)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_title(title)
    every = max(1, math.ceil(len(ends) / NAMED_LAYERS))
    label_ends(axes, {label: ends[label] for label in list(ends)[::every]})
