"""The figure of hard units: their inputs and outputs, how many are active, and how many have flipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from altprop.nn.units.levels import Levels
from altprop.reporting.figures.style import BLUE, GRAY, GREEN, SKY, VERMILLION, save, styled

MAX_LAYERS = 20
"""With more layers than this, an evenly spaced selection is shown that includes the first and the last."""


class Layer(Protocol):
    """The data of one layer; see :class:`altprop.algorithms.target_propagation.unit_diagnostics.LayerRecord`."""

    @property
    def name(self) -> str: ...
    @property
    def levels(self) -> Levels: ...
    @property
    def input_counts(self) -> Tensor: ...
    @property
    def input_edges(self) -> Tensor: ...
    @property
    def weight(self) -> Tensor: ...
    @property
    def level_shares(self) -> Tensor: ...
    @property
    def active(self) -> Tensor: ...
    @property
    def flipped(self) -> Tensor: ...


def draw_units(layers: Sequence[Layer], path: Path) -> Path:
    """Draw a row per layer: its inputs with the estimator's weight, the share of each output level, and fractions over epochs."""
    if len(layers) > MAX_LAYERS:
        layers = [layers[round(index)] for index in np.linspace(0, len(layers) - 1, MAX_LAYERS)]
    with styled():
        figure = Figure(figsize=(9.0, 0.6 + 1.7 * len(layers)))
        grid = figure.subplots(len(layers), 3, squeeze=False, width_ratios=[2, 1, 1.6])
        for row, layer in zip(grid, layers):
            _draw_inputs(row[0], layer)
            _draw_levels(row[1], layer)
            _draw_history(row[2], layer)
        for axes, title in zip(grid[0], ("Inputs", "Outputs", "Active, flipped")):
            axes.set_title(f"{title}: {layers[0].name}" if title == "Inputs" else title)
        for axes, label in zip(grid[-1], ("input of the unit", "level", "epoch")):
            axes.set_xlabel(label)
        return save(figure, path)


def _draw_inputs(axes: Axes, layer: Layer) -> None:
    edges, counts = layer.input_edges.numpy(), layer.input_counts.numpy()
    widths = edges[1:] - edges[:-1]
    axes.bar(edges[:-1], counts / (counts.sum() * widths), widths, align="edge", color=SKY, linewidth=0)
    axes.set_title(layer.name)
    axes.set_ylabel("density")
    axes.grid(axis="x", visible=False)
    for threshold in layer.levels.thresholds:
        if edges[0] <= threshold <= edges[-1]:
            axes.axvline(threshold, color=GRAY, linewidth=0.8, linestyle=":")
    weight = axes.twinx()
    weight.plot((edges[1:] + edges[:-1]) / 2, layer.weight.numpy(), color=VERMILLION)
    weight.set_ylim(bottom=0)
    weight.grid(visible=False)
    weight.spines["right"].set_visible(True)
    weight.set_ylabel("weight", color=VERMILLION)
    weight.tick_params(axis="y", labelcolor=VERMILLION)


def _draw_levels(axes: Axes, layer: Layer) -> None:
    levels = layer.levels
    names = [f"{levels.low + (levels.high - levels.low) * count / levels.rises:.2g}" for count in range(levels.rises + 1)]
    axes.bar(range(levels.rises + 1), layer.level_shares.numpy() * 100, color=BLUE)
    every = max(1, (levels.rises + 1) // 8)
    axes.set_xticks(range(0, levels.rises + 1, every), names[::every])
    axes.set_ylabel("% of outputs")
    axes.set_ylim(0, 100)
    axes.grid(axis="x", visible=False)


def _draw_history(axes: Axes, layer: Layer) -> None:
    epochs = range(1, len(layer.active) + 1)
    marker = "o" if len(epochs) <= 20 else None
    for values, color, label in ((layer.active, VERMILLION, "active"), (layer.flipped, GREEN, "flipped")):
        axes.plot(epochs, values.numpy() * 100, color=color, marker=marker, markersize=3, label=label, clip_on=False)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of units")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="best", fontsize=8)
