"""Draw the figure of the pairwise table in docs/results.md from docs/results/measured.json.

python docs/figures/draw_results.py
"""

from __future__ import annotations

import runpy
import statistics
from pathlib import Path

from matplotlib.figure import Figure

from altprop.reporting.figures.style import BLUE, GREEN, VERMILLION, save, styled

MEASURE = runpy.run_path(str(Path(__file__).parents[1] / "results" / "measure.py"))
COLORS = dict(zip(MEASURE["WEIGHTS"], (BLUE, VERMILLION, GREEN), strict=True))


def draw() -> Path:
    """Draw the test accuracy (percent, mean and standard deviation over seeds) of every signal, kind of units and of weights."""
    store = MEASURE["read_store"]()
    places: dict[str, int] = {}
    with styled():
        figure = Figure(figsize=(7.2, 3.6))
        axes = figure.subplots()
        for sweep, units in (("quick/graded_units", "ReLU"), ("quick/hard_units", "sign")):
            for overrides, name in MEASURE["sweep_ids"](sweep):
                weights = overrides["algorithm/weights"]
                place = places.setdefault(f"{MEASURE['SIGNALS'][overrides['algorithm']]}, {units}", len(places))
                shift = 0.22 * (list(COLORS).index(weights) - 1)
                values = store[name]["values"]["test/accuracy"]
                mean, deviation = statistics.fmean(values), statistics.stdev(values)
                label = MEASURE["WEIGHTS"][weights] if place == 0 else None
                axes.errorbar(mean, place + shift, xerr=deviation, fmt="o", ms=4, color=COLORS[weights], label=label)
        axes.set_yticks(list(places.values()), list(places))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("test accuracy (%)")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return save(figure, Path(__file__).with_name("results_pairs.png"))


if __name__ == "__main__":
    print(draw())
