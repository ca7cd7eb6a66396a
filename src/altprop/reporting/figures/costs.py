"""Accuracy over cost: one line per signal, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from altprop.reporting.curves import Curve, mean_curve
from altprop.reporting.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, save, styled
from altprop.reporting.rows import Row
from altprop.reporting.searches import TEST, VALIDATION, Search, at_the_end, learning_rate
from altprop.reporting.statistics import half_width

COLORS = (INK, BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
LINES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
COSTS = (("epochs", "Epochs"), ("seconds", "Training time (seconds)"), ("flops", "Training FLOPs"))


def half_widths(curve: Curve) -> list[float]:
    """Return half the width of the 95 % interval of the mean (Student's t) at each point; empty for a single run."""
    return [half_width(deviation, curve.count) for deviation in curve.std] if curve.count > 1 else []


def draw_over_cost(search: Search, path: Path) -> Path:
    """Draw the validation accuracy of the rows of ``search`` over epochs, training time and FLOPs, the last two logarithmic.

    A line is the mean over the seeds of a row, its band the 95 % interval of that mean. The legend lists the rows by their test
    accuracy at the end. The vertical axis begins a little below the lowest end of a line, so that lines that end close together
    can be told apart.
    """
    curves = [(row, mean_curve([run.records for run in row.finished], VALIDATION)) for row in search.rows]
    looks = {row.label: (COLORS[n % len(COLORS)], LINES[n // len(COLORS) % len(LINES)]) for n, (row, _) in enumerate(curves)}
    with styled():
        figure = Figure(figsize=(9.6, 3.4 + 0.1 * len(curves)))
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for axes, (cost, title) in zip(panels, COSTS, strict=True):
            for row, curve in curves:
                if curve is None or not (costs := getattr(curve, cost)):
                    continue
                color, line = looks[row.label]
                axes.plot(costs, curve.mean, color=color, linestyle=line)
                if widths := half_widths(curve):
                    low, high = zip(*((mean - half, mean + half) for mean, half in zip(curve.mean, widths)))
                    axes.fill_between(costs, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_xlabel(title)
            if cost != "epochs":
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # the default writes powers of ten as formulas
                axes.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("Validation accuracy (%)")
        if ends := [curve.mean[-1] for _, curve in curves if curve is not None]:
            panels[0].set_ylim(*limits(min(ends), max(ends)))
        handles = [Line2D([], [], color=color, linestyle=line) for color, line in looks.values()]
        texts = [legend_entry(row) for row, _ in curves]
        title = "Test accuracy at the end (%), mean and 95 % interval"
        figure.legend(handles, texts, loc="outside lower left", ncols=2, frameon=False, title=title, alignment="left")
        return save(figure, path)


def limits(lowest: float, highest: float) -> tuple[float, float]:
    """Return the ends of the axis of accuracies (percent) for lines that end between ``lowest`` and ``highest``."""
    margin = max(1.0, (highest - lowest) / 2)
    return max(0.0, lowest - margin), min(100.0, highest + max(0.5, margin / 4))


def legend_entry(row: Row) -> str:
    """Return the text of ``row`` in the legend: the name without the folder, the rate, the test accuracy and its interval."""
    test, rate = at_the_end(row, TEST), learning_rate(row)
    name = row.name.rpartition("/")[2] + (f", rate {rate:g}" if rate is not None else "")
    if test is None:
        return name
    interval = f" ± {test.high - test.mean:.2g}" if test.high is not None else ""
    return f"{name}: {test.mean:.4g}{interval}"
