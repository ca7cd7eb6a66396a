"""Accuracy over cost: one line per signal, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from scipy.special import stdtrit

from altprop.reporting.curves import Curve
from altprop.reporting.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, save, styled
from altprop.reporting.rows import Row
from altprop.reporting.searches import learning_rate
from altprop.reporting.statistics import CONFIDENCE

COLORS = (INK, BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
LINES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
COSTS = (("epochs", "Epochs"), ("seconds", "Training time (seconds)"), ("flops", "Training FLOPs"))


def half_widths(curve: Curve) -> list[float]:
    """Return half the width of the 95 % interval of the mean (Student's t) at each point; empty for a single run."""
    if curve.count < 2:
        return []
    quantile = float(stdtrit(curve.count - 1, (1 + CONFIDENCE) / 2))
    return [quantile * deviation / math.sqrt(curve.count) for deviation in curve.std]


def draw_over_cost(rows: Sequence[Row], path: Path) -> Path:
    """Draw the metric of ``rows`` over epochs, training time and FLOPs, the latter two on logarithmic axes.

    A line is the mean over the seeds of a row, its band the 95 % interval of that mean. Rows are listed by their last value.
    """
    curves = [(row, row.curve) for row in rows if row.curve is not None]
    ranked = sorted(curves, key=lambda pair: pair[1].mean[-1], reverse=True)
    looks = {row.label: (COLORS[n % len(COLORS)], LINES[n // len(COLORS) % len(LINES)]) for n, (row, _) in enumerate(ranked)}
    with styled():
        figure = Figure(figsize=(9.6, 3.4 + 0.17 * len(ranked)))
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for axes, (cost, title) in zip(panels, COSTS, strict=True):
            for row, curve in ranked:
                costs = getattr(curve, cost)
                if not costs:
                    continue
                color, line = looks[row.label]
                axes.plot(costs, curve.mean, color=color, linestyle=line, marker="o", markersize=2.5)
                if widths := half_widths(curve):
                    low, high = zip(*((mean - half, mean + half) for mean, half in zip(curve.mean, widths)))
                    axes.fill_between(costs, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_xlabel(title)
            if cost != "epochs":
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # the default writes powers of ten as formulas
                axes.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel(ranked[0][0].metric if ranked else "")
        handles = [Line2D([], [], color=color, linestyle=line) for color, line in looks.values()]
        figure.legend(
            handles, [legend_entry(row, curve) for row, curve in ranked], loc="outside lower left", ncols=2, frameon=False
        )
        return save(figure, path)


def legend_entry(row: Row, curve: Curve) -> str:
    """Return the text of ``row`` in a legend: its name without the folder, its learning rate, the last mean and its interval."""
    widths = half_widths(curve)
    interval = f" ± {widths[-1]:.2g}" if widths else ""
    rate = learning_rate(row)
    suffix = f", rate {rate:g}" if rate is not None else ""
    return f"{row.name.rpartition('/')[2]}{suffix}: {curve.mean[-1]:.4g}{interval}"
