"""The figure of every estimator's surrogate derivative.

Run it with ``python -m altprop.reporting.figures.estimators <file.png>``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.margin import MarginEstimator
from altprop.nn.estimators.rules import PUBLISHED_MARGIN_RULES, RULES
from altprop.nn.estimators.tanh import Sigmoid
from altprop.nn.units.levels import Levels
from altprop.reporting.figures.style import BLUE, GRAY, GREEN, VERMILLION, save, styled

COLUMNS = 4
SIGN, BINARY, STAIRCASE = Levels("sign", low=-1.0, high=1.0), Levels("binary"), Levels("staircase", 5)
_SIGMOIDS = {
    "sigmoid": partial(Sigmoid, height=1.0, slope=2.0),
    "sigmoid2": partial(Sigmoid, height=2.0, slope=2.0),
    "sigmoid3": partial(Sigmoid, height=2.0, slope=3.0),
}


def default_estimator(name: str) -> Estimator:
    """The estimator that ``algorithm/estimator=<name>`` builds."""
    if name in _SIGMOIDS:
        return _SIGMOIDS[name]()
    if RULES[name] is MarginEstimator:
        return MarginEstimator(loss=PUBLISHED_MARGIN_RULES.get(name, name))
    make: Callable[[], Estimator] = RULES[name]
    return make()


def draw_estimators(path: Path) -> Path:
    """Draw a panel per rule: the weight of a unit's gradient over the unit's input, for each target if the targets differ."""
    panels = [(name, default_estimator(name), SIGN) for name in RULES]
    panels += [(name, rule, STAIRCASE) for name, rule, _ in panels if "staircase" in rule.fits]
    rows = -(-len(panels) // COLUMNS)
    with styled():
        figure = Figure(figsize=(2.6 * COLUMNS, 1.55 * rows))
        grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
        for axes, (name, rule, levels) in zip(grid, panels):
            _draw(axes, name, rule, levels)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[max(len(panels) - COLUMNS, 0) : len(panels)]:
            axes.set_xlabel("input of the unit")
        handles = [
            axes.plot([], [], color=color, linestyle=style, label=label)[0]
            for color, style, label in (
                (BLUE, "-", "both targets"),
                (BLUE, "--", "target +1"),
                (VERMILLION, "--", "target -1"),
                (GREEN, ":", "binary step"),
            )
        ]
        figure.legend(handles=handles, ncols=4, frameon=False, loc="outside upper right")
        return save(figure, path)


def _draw(axes: Axes, name: str, rule: Estimator, levels: Levels) -> None:
    inputs = torch.linspace(-3, 3, 1201, dtype=torch.float64) + (0.5 if levels is STAIRCASE else 0.0)
    up, down = (rule.weight(inputs, torch.full_like(inputs, target), levels) for target in (1.0, -1.0))
    if (up - down).abs().gt(1e-9).double().mean() < 0.02:  # targets may make a difference at the ends of an interval only
        axes.plot(inputs, up, color=BLUE)
    else:
        axes.plot(inputs, up, color=BLUE, linestyle="--")
        axes.plot(inputs, down, color=VERMILLION, linestyle="--")
    if levels is SIGN and "binary" in rule.fits:
        axes.plot(inputs, rule.weight(inputs, torch.ones_like(inputs), BINARY), color=GREEN, linestyle=":")
    for threshold in levels.thresholds:
        axes.axvline(threshold, color=GRAY, linewidth=0.6, linestyle=":")
    published = rule.loss.published if isinstance(rule, MarginEstimator) else True
    suffix = ", staircase" if levels is STAIRCASE else "" if published else " (added)"
    axes.set_title(f"{name}{suffix}", fontsize=7)
    axes.set_ylim(min(0.0, float(torch.minimum(up, down).min())) - 0.05, None)
    axes.tick_params(labelsize=7)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m altprop.reporting.figures.estimators <file.png>")
    print(draw_estimators(Path(sys.argv[1])))
