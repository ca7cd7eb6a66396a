"""Draw the figure of the pairwise table in docs/results.md from the report of its runs.

python report.py runs='combinations/*'
python docs/figures/draw_results.py outputs/report/report.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from altprop.reporting.figures.style import BLUE, GREEN, VERMILLION, save, styled

WEIGHTS = {"Dense": ("dense", BLUE), "DynamicSparse": ("dynamic sparse, 0.9", VERMILLION), "IterativeBinary": ("binary", GREEN)}
UNITS = {"combinations/relu": "ReLU", "combinations/sign_step": "sign"}


def draw(report: Path) -> Path:
    """Draw the test accuracy (percent, mean and standard deviation over seeds) of every signal, kind of units and of weights."""
    with report.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["experiment"] in UNITS]
    places: dict[tuple[str, str], int] = {}
    with styled():
        figure = Figure(figsize=(7.2, 3.6))
        axes = figure.subplots()
        for row in rows:
            words = dict(word.split("=") for word in row["variant"].split())
            label, color = WEIGHTS[words["algorithm.weights"]]
            place = places.setdefault((words["algorithm"], UNITS[row["experiment"]]), len(places))
            shift = 0.22 * (list(WEIGHTS).index(words["algorithm.weights"]) - 1)
            mean, deviation = float(row["last_mean"]), float(row["last_std"] or 0.0)
            axes.errorbar(mean, place + shift, xerr=deviation, fmt="o", ms=4, color=color, label=label if place == 0 else None)
        axes.set_yticks(list(places.values()), [f"{signal}, {units}" for signal, units in places])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("test accuracy (%)")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return save(figure, Path(__file__).with_name("results_pairs.png"))


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
