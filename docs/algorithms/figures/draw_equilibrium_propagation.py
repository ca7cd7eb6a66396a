"""Draw the figure of docs/algorithms/equilibrium_propagation.md from finished runs.

python docs/algorithms/figures/draw_equilibrium_propagation.py <symmetric run> <one-sided run> <BPTT run>
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from altprop.reporting.figures.style import BLUE, GRAY, VERMILLION, label_ends, save, styled
from altprop.tracking.metrics_file import read_metrics


def draw(symmetric: Path, one_sided: Path, bptt: Path) -> Path:
    """Draw test accuracy and training loss of the runs over the epochs; the arguments are run directories."""
    runs = (("BPTT", bptt, GRAY), ("symmetric", symmetric, BLUE), ("one-sided", one_sided, VERMILLION))
    with styled():
        figure = Figure(figsize=(7.6, 3.0))
        for axes, metric, label in zip(
            figure.subplots(1, 2), ("test/accuracy", "train/loss"), ("test accuracy (%)", "training loss"), strict=True
        ):
            ends = {}
            for name, directory, color in runs:
                records = [record for record in read_metrics(directory / "metrics.jsonl") if metric in record]
                values = [record[metric] for record in records]
                axes.plot([record["epoch"] for record in records], values, color=color, marker="o", ms=3)
                ends[name] = (values[-1], color)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            label_ends(axes, ends)
        return save(figure, Path(__file__).with_name("equilibrium_propagation_symmetric.png"))


if __name__ == "__main__":
    print(draw(*map(Path, sys.argv[1:])))
