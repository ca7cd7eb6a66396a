"""Figures of sparse training: how the structure changes during a run, the final structure, and accuracy over sparsity.

    python -m altprop.reporting.figures.sparse <outputs>/dsr --rows mnist --figures docs/algorithms/figures

draws them from finished runs. Accuracies are those of all runs in the folders ``<rows>_<method>``; structures are those of the
runs in ``<rows>_dynamic``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from altprop.reporting.figures.style import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, label_ends, save, styled
from altprop.tracking.metrics_file import read_metrics
from altprop.yaml_files import read_yaml

DENSITY = "weights/density/"
DENSE = "dense"
"""The name in experiments of the dense network that the methods are compared with."""
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
"""Label, color and line style of every method, by its name in experiments; related methods share a color."""
THIN = {
    "wrn": {0.75: 0.9, 0.98: 0.8, 1.15: 0.7, 1.33: 0.6, 1.47: 0.5},
    "r50": {0.54: 0.8, 0.46: 0.9},
}
"""The sparsity at which a thin dense network is drawn, by rows and width: a network of this sparsity stores as many numbers,
masks included."""
NAMED_LAYERS = 12
"""Up to this many layers are all labeled; of more, only the first and the last."""

Accuracies = Mapping[float, Sequence[float]]
"""Final test accuracies (percent) of all seeds, by sparsity."""


def draw_structure(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Draw the density of every sparse layer and the amount of moved structure over epochs.

    Draws nothing and returns None if ``records`` (metrics.jsonl) contain nothing about moving structure.
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
    for name, label, color, source in (
        ("weights/ever_active", "ever active", BLUE, records),
        ("weights/pruned_again", "grown, then\npruned again", VERMILLION, moving),
    ):
        values = [100 * record[name] for record in source]
        if values:
            axes.plot([record["epoch"] for record in source], values, color=color)
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
    axes.yaxis.set_minor_formatter(NullFormatter())  # the default one would write formulas, which the style does not render


def _shades(count: int) -> list[Any]:
    if count <= 6:
        return [BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY][:count]
    return [colormaps["viridis"](0.95 * place / (count - 1)) for place in range(count)]


def draw_layers(records: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> Path | None:
    """Draw the final sparsity (percent) of every sparse layer as a bar, in the model's order, and the overall sparsity as a line.

    Draws nothing and returns None if ``records`` (metrics.jsonl) contain no densities.
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
    """Draw final test accuracy (percent) over sparsity: a line through the means of each method in ``results``, a point per run.

    ``dense`` are the accuracies of the dense network; their mean is a horizontal line. The sparsity axis is logarithmic in the
    density. Raises ``ValueError`` if ``results`` contain no accuracy.
    """
    if not any(results.values()):
        raise ValueError("no accuracies to draw")
    with styled():
        figure = Figure(figsize=(7.2, 4.2))
        axes = figure.subplots()
        everything = sorted({level for accuracies in results.values() for level in accuracies})
        first, last = 1 - everything[0], 1 - everything[-1]
        margin = max(1.1, (first / last) ** 0.05)  # Matplotlib's own margin is zero if there is only one sparsity
        axes.set_xscale("log")
        axes.set_xlim(first * margin, last / margin)
        ends: dict[str, tuple[float, str]] = {}
        for method, (label, color, line) in METHODS.items():
            accuracies = results.get(method, {})
            if not accuracies:
                continue
            levels = sorted(accuracies)
            means = [statistics.fmean(accuracies[level]) for level in levels]
            axes.plot([1 - level for level in levels], means, color=color, linestyle=line, marker="o", markersize=4)
            for level in levels:
                axes.plot([1 - level] * len(accuracies[level]), accuracies[level], ".", color=color, markersize=3, alpha=0.6)
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
    """The rows and method of an experiment: ``dsr/wrn`` and ``dynamic_g2`` of ``dsr/wrn_dynamic_g2``; empty for any other."""
    for method in sorted((*METHODS, DENSE), key=len, reverse=True):
        if experiment.endswith(f"_{method}"):
            return experiment.removesuffix(f"_{method}"), method
    return "", ""


def sparsity_of(rows: str, method: str, config: Mapping[str, Any]) -> float | None:
    """The sparsity at which a run with ``config`` is drawn; None if it is not a single number."""
    if method == "thin":
        return THIN.get(rows.rpartition("/")[2], {}).get((config.get("model") or {}).get("width", 1.0))
    sparsity = ((config.get("algorithm") or {}).get("weights") or {}).get("sparsity")
    return float(sparsity) if isinstance(sparsity, (int, float)) else None


def collect(folder: Path, rows: str) -> tuple[dict[str, dict[float, list[float]]], list[float]]:
    """The final test accuracies of the finished runs in ``folder/<rows>_<method>/<key>``.

    Returns those of the methods, by method and sparsity, and those of the dense network.
    """
    results: dict[str, dict[float, list[float]]] = {}
    for method in METHODS:
        accuracies: dict[float, list[float]] = defaultdict(list)
        for run in _finished(folder / f"{rows}_{method}"):
            sparsity = sparsity_of(rows, method, read_yaml(run / "config.yaml"))
            if sparsity is not None:
                accuracies[sparsity].append(_accuracy(run))
        results[method] = dict(accuracies)
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
    parser.add_argument("--figures", type=Path, default=Path(), help="folder to draw into")
    arguments = parser.parse_args()
    results, dense = collect(arguments.folder, arguments.rows)
    print(f"dense: {_summary(dense)}")
    for method, accuracies in results.items():
        for sparsity in sorted(accuracies):
            print(f"{method} {sparsity:g}: {_summary(accuracies[sparsity])}")
    name = f"dynamic_sparse_{arguments.rows}"
    print(draw_accuracy_over_sparsity(results, dense, arguments.figures / f"{name}_accuracy.png"))
    for run in _finished(arguments.folder / f"{arguments.rows}_dynamic"):
        config = read_yaml(run / "config.yaml")
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
