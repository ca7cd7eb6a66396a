"""Figures of sparse training: how the structure moves during a run, what it ends as, and accuracy over sparsity for all methods.

    python -m altprop.reporting.figures.sparse <outputs>/dsr --rows mnist --figures docs/algorithms/figures

draws them from finished runs: every run in the folders ``<rows>_<method>`` counts, structures are those of ``<rows>_dynamic``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from altprop.reporting.figures.style import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, label_ends, save, styled
from altprop.tracking.metrics_file import read_metrics

DENSITY = "weights/density/"
DENSE = "dense"
"""What the experiments call the network that the methods are compared with."""
SOLID, DASHED, DOTTED = "-", (0, (4, 2)), (0, (1, 1.2))
METHODS = {
    "dynamic": ("dynamic sparse", VERMILLION, SOLID),
    "dynamic_g2": ("dynamic sparse, slices", VERMILLION, DASHED),
    "set": ("SET", ORANGE, SOLID),
    "rigl": ("RigL", ORANGE, DASHED),
    "deepr": ("DeepR", PURPLE, SOLID),
    "static": ("static sparse", BLUE, SOLID),
    "mask_random": ("final mask, new weights", BLUE, DASHED),
    "mask_init": ("final mask, initial weights", BLUE, DOTTED),
    "tied": ("tied", SKY, SOLID),
    "prune": ("pruned", GREEN, SOLID),
    "thin": ("thin dense", INK, SOLID),
}
"""Title, color and line of every method, by the name of its experiment; relatives share a color."""
THIN = {
    "wrn": {0.75: 0.9, 0.98: 0.8, 1.15: 0.7, 1.33: 0.6, 1.47: 0.5},
    "r50": {0.54: 0.8, 0.46: 0.9},
}
"""The sparsity that a thin dense network stands for, by rows and width: as many numbers as the sparse one with its masks."""
NAMED_LAYERS = 12
"""Up to this many layers have their names beside their curves; of more the first and last."""

Accuracies = Mapping[float, Sequence[float]]
"""Final test accuracies (percent) of all seeds, by sparsity."""


def draw_structure(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Density of every sparse layer, and what moved, against epochs.

    Returns None, and draws nothing, where ``records`` (metrics.jsonl) say nothing about moving structure.
    """
    records = [record for record in records if "weights/updates" in record]
    if not records:
        return None
    layers = [name.removeprefix(DENSITY) for name in records[0] if name.startswith(DENSITY)]
    epochs = [record["epoch"] for record in records]
    with styled():
        figure = Figure(figsize=(10.4, 3.4))
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=GRAY)
        densities, shares, moved = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        _draw_densities(densities, records, layers, epochs)
        _draw_shares(shares, records)
        _draw_moved(moved, records)
        return save(figure, path)


def _draw_densities(axes: Axes, records: Sequence[Mapping[str, Any]], layers: Sequence[str], epochs: Sequence[float]) -> None:
    colors = _shades(len(layers))
    ends = {}
    for layer, color in zip(layers, colors):
        values = [100 * record[DENSITY + layer] for record in records]
        axes.plot(epochs, values, color=color)
        ends[f"{layer} {values[-1]:.2g}"] = (values[-1], color)
    _logarithmic(axes)
    axes.set_xlabel("epoch")
    axes.set_title("Density of layers (percent)")
    named = list(ends) if len(layers) <= NAMED_LAYERS else [next(iter(ends)), next(reversed(ends))]
    label_ends(axes, {label: ends[label] for label in named})


def _draw_shares(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    ends = {}
    moving = [record for record in records if record["weights/updates"]]
    for name, label, color, chosen in (
        ("weights/ever_active", "ever active", BLUE, records),
        ("weights/pruned_again", "grown, then\npruned again", VERMILLION, moving),
    ):
        values = [100 * record[name] for record in chosen]
        if values:
            axes.plot([record["epoch"] for record in chosen], values, color=color)
            ends[label] = (values[-1], color)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_title("Shares (percent)")
    label_ends(axes, ends)


def _draw_moved(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    moving = [record for record in records if record["weights/updates"]]
    axes.plot([record["epoch"] for record in moving], [record["weights/pruned"] for record in moving], color=BLUE)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_title("Moved")
    axes.set_ylabel("units per update", color=BLUE)
    if any("weights/threshold" in record for record in moving):
        right = axes.twinx()
        thresholds = [(record["epoch"], record["weights/threshold"]) for record in moving]
        right.plot(*zip(*thresholds), color=VERMILLION, linewidth=1.1)
        _logarithmic(right)
        right.set_ylabel("threshold", color=VERMILLION)
        right.grid(visible=False)
        right.spines["right"].set_visible(True)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())  # its own would write formulas, which the style does not set


def _shades(count: int) -> list[Any]:
    if count <= 6:
        return [BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY][:count]
    from matplotlib import colormaps

    return [colormaps["viridis"](0.95 * place / (count - 1)) for place in range(count)]


def draw_layers(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Sparsity of every sparse layer (percent) at the end of the run, a bar each in the model's order, and that of all together.

    Returns None, and draws nothing, where ``records`` (metrics.jsonl) say nothing about densities.
    """
    last: Mapping[str, Any] = next((record for record in reversed(list(records)) if "weights/density" in record), {})
    sparsities = {name.removeprefix(DENSITY): 100 * (1 - last[name]) for name in last if name.startswith(DENSITY)}
    if not sparsities:
        return None
    places = range(len(sparsities))
    with styled():
        figure = Figure(figsize=(min(10.4, 2.8 + 0.3 * len(sparsities)), 3.6))
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=GRAY)
        axes = figure.subplots()
        axes.bar(places, list(sparsities.values()), color=BLUE, width=0.75)
        overall = 100 * (1 - last["weights/density"])
        axes.axhline(overall, color=VERMILLION, linewidth=1.1, linestyle=DASHED)
        axes.set_ylim(0, 105)
        axes.set_xlim(-0.6, len(sparsities) - 0.4)
        axes.set_xticks(places, [f"{layer}  {value:.3g}" for layer, value in sparsities.items()], rotation=90, fontsize=7)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("sparsity (percent)")
        axes.set_title("Sparsity of layers at the end")
        label_ends(axes, {f"all {overall:.3g}": (overall, VERMILLION)})
        return save(figure, path)


def draw_accuracy_over_sparsity(
    results: Mapping[str, Accuracies], dense: Sequence[float], path: Path, *, title: str = ""
) -> Path:
    """Final test accuracy (percent) against sparsity, a line per method of ``results`` through the means, a point per run.

    ``dense`` are the accuracies of the dense network, a horizontal line at their mean. The axis of sparsity is even in the
    logarithm of the density. Raises ``ValueError`` without any result.
    """
    if not any(results.values()):
        raise ValueError("no accuracies to draw")
    with styled():
        figure = Figure(figsize=(7.2, 4.2))
        axes = figure.subplots()
        everything = sorted({level for found in results.values() for level in found})
        first, last = 1 - everything[0], 1 - everything[-1]
        margin = max(1.1, (first / last) ** 0.05)  # matplotlib's own is none where there is one sparsity
        axes.set_xscale("log")
        axes.set_xlim(first * margin, last / margin)
        ends: dict[str, tuple[float, str]] = {}
        for method, (label, color, line) in METHODS.items():
            found = results.get(method, {})
            if not found:
                continue
            levels = sorted(found)
            means = [statistics.fmean(found[level]) for level in levels]
            axes.plot([1 - level for level in levels], means, color=color, linestyle=line, marker="o", markersize=4)
            for level in levels:
                axes.plot([1 - level] * len(found[level]), found[level], ".", color=color, markersize=3, alpha=0.6)
            ends[label] = (means[-1], color)
        if dense:
            axes.axhline(statistics.fmean(dense), color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
            ends["dense"] = (statistics.fmean(dense), GRAY)
        axes.set_xticks([1 - level for level in everything], [f"{level:g}" for level in everything])
        axes.minorticks_off()
        axes.set_xlabel("sparsity")
        axes.set_ylabel("test accuracy (percent)")
        axes.set_title(title or "Accuracy over sparsity")
        label_ends(axes, ends)
        return save(figure, path)


def method_of(experiment: str) -> tuple[str, str]:
    """Rows and method of an experiment: ``dsr/wrn_dynamic_g2`` is ``dynamic_g2`` of ``dsr/wrn``; of any other both are empty."""
    for method in sorted((*METHODS, DENSE), key=len, reverse=True):
        if experiment.endswith(f"_{method}"):
            return experiment.removesuffix(f"_{method}"), method
    return "", ""


def sparsity_of(rows: str, method: str, config: Mapping[str, Any]) -> float | None:
    """The sparsity that a run with ``config`` stands for; None where that is no one number."""
    if method == "thin":
        return THIN.get(rows.rpartition("/")[2], {}).get((config.get("model") or {}).get("width", 1.0))
    sparsity = ((config.get("algorithm") or {}).get("weights") or {}).get("sparsity")
    return float(sparsity) if isinstance(sparsity, (int, float)) else None


def collect(folder: Path, rows: str) -> tuple[dict[str, dict[float, list[float]]], list[float]]:
    """Final test accuracies of the finished runs in ``folder/<rows>_<method>/<key>``.

    By method and sparsity, and those of the dense runs.
    """
    results: dict[str, dict[float, list[float]]] = {}
    for method in METHODS:
        found: dict[float, list[float]] = defaultdict(list)
        for run in _finished(folder / f"{rows}_{method}"):
            sparsity = sparsity_of(rows, method, yaml.safe_load((run / "config.yaml").read_text()))
            if sparsity is not None:
                found[sparsity].append(_accuracy(run))
        results[method] = dict(found)
    return results, [_accuracy(run) for run in _finished(folder / f"{rows}_{DENSE}")]


def _finished(folder: Path) -> list[Path]:
    runs = sorted(folder.iterdir()) if folder.is_dir() else []
    return [run for run in runs if _status(run).get("status") == "done"]


def _status(run: Path) -> dict[str, Any]:
    file = run / "status.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _accuracy(run: Path) -> float:
    return float(_status(run)["last"]["test/accuracy"])


def main() -> None:
    """Draw the figures and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="<outputs>/dsr")
    parser.add_argument("--rows", default="mnist", help="experiments <rows>_<method>: mnist, quick, wrn, r50")
    parser.add_argument("--figures", type=Path, default=Path(), help="where to draw")
    arguments = parser.parse_args()
    results, dense = collect(arguments.folder, arguments.rows)
    print(f"dense: {_summary(dense)}")
    for method, found in results.items():
        for sparsity in sorted(found):
            print(f"{method} {sparsity:g}: {_summary(found[sparsity])}")
    name = f"dynamic_sparse_{arguments.rows}"
    print(draw_accuracy_over_sparsity(results, dense, arguments.figures / f"{name}_accuracy.png"))
    for run in _finished(arguments.folder / f"{arguments.rows}_dynamic"):
        config = yaml.safe_load((run / "config.yaml").read_text())
        level, seed = config["algorithm"]["weights"]["sparsity"], config["seed"]
        title = f"{config['name']}, sparsity {level:g}, seed {seed}"
        for kind, function in (("structure", draw_structure), ("layers", draw_layers)):
            file = arguments.figures / f"{name}_{kind}_{level:g}_seed{seed}.png"
            print(function(read_metrics(run / "metrics.jsonl"), file, title=title))


def _summary(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread} ({len(values)} runs)"


if __name__ == "__main__":
    main()
