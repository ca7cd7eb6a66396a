"""Figures of block-wise training: all blocks of a run, several methods, sequential and parallel training, and buffer sweeps.

python -m altprop.reporting.figures.greedy methods --out methods.png backprop=<run> DGL=<run> DGL=<run of another seed>
python -m altprop.reporting.figures.greedy learning_curves --out curves.png parallel=<run> sequential=<run>
python -m altprop.reporting.figures.greedy slowdown --out slowdown.png outputs/dgl/buffer_example/*
python -m altprop.reporting.figures.greedy buffer_size --out size.png outputs/dgl/buffer_example/*
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from altprop.reporting.curves import mean_curve
from altprop.reporting.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, label_ends, save, styled
from altprop.tracking.metrics_file import read_metrics
from altprop.yaml_files import read_yaml

Line = Literal["-", "--", ":", "-."]
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
MAX_LABEL_LENGTH = 24
"""Length of the longest label, in characters, that fits next to a panel."""
Records = Sequence[Mapping[str, float]]
Series = tuple[list[float], list[float]]
"""Epochs and values of one curve."""
Curves = Mapping[str, Series]


def series(records: Records, metric: str) -> Series:
    """The epochs and values of ``metric`` in those ``records`` (metrics.jsonl) that contain it."""
    points = [(record["epoch"], record[metric]) for record in records if metric in record]
    return [epoch for epoch, _ in points], [value for _, value in points]


def block_curves(records: Records, metric: str) -> dict[str, Series]:
    """The curves of ``metric`` (``test/accuracy``, for example) of every block, as ``block n``, in the order of the blocks."""
    split, _, quantity = metric.partition("/")
    names = {name for record in records for name in record if re.fullmatch(rf"{split}/block\d+/{quantity}", name)}
    ordered = sorted(names, key=lambda name: int(re.findall(r"block(\d+)", name)[0]))
    return {name.split("/")[1].replace("block", "block "): series(records, name) for name in ordered}


def draw_blocks(records: Records, path: Path) -> Path:
    """Draw training loss and test accuracy (percent) of every block over epochs."""
    loss, accuracy = block_curves(records, "train/loss"), block_curves(records, "test/accuracy")
    ensemble = series(records, "test/ensemble/accuracy")
    with styled():
        figure = Figure(figsize=(9.2, 3.2))
        left, right = figure.subplots(1, 2)
        _panel(left, "Training loss", loss)
        _panel(right, "Test accuracy (percent)", {**accuracy, **({"ensemble": ensemble} if ensemble[0] else {})})
        return save(figure, path)


def draw_methods(runs: Mapping[str, Sequence[Records]], path: Path) -> Path:
    """Draw test accuracy (percent) and training loss of several methods over epochs.

    A curve is the mean over the runs of a method, with a band of one standard deviation if there are several. A few short labels
    are written at the ends of the curves; many or long ones go into a legend below, with the last accuracy.
    """
    over_seeds = {metric: _means(runs, metric) for metric in ("test/accuracy", "train/loss")}
    accuracy, loss = ({label: mean for label, (mean, _) in each.items()} for each in over_seeds.values())
    at_the_ends = len(runs) <= len(COLORS) and max(map(len, runs), default=0) <= MAX_LABEL_LENGTH
    looks = {label: (COLORS[n % len(COLORS)], LINES[n // len(COLORS) % len(LINES)]) for n, label in enumerate(runs)}
    with styled():
        figure = Figure(figsize=(9.2, 3.2 if at_the_ends else 3.4 + 0.2 * len(runs)))
        left, right = figure.subplots(1, 2)
        _panel(left, "Test accuracy (percent)", accuracy, looks, named=at_the_ends)
        _panel(right, "Training loss", loss, looks, named=at_the_ends)
        if not at_the_ends:
            names = [f"{label}  {values[-1]:.4g}" if values else label for label, (_, values) in accuracy.items()]
            lines = [Line2D([], [], color=color, linestyle=line) for color, line in looks.values()]
            figure.legend(lines, names, loc="outside lower left", frameon=False, fontsize=8)
        for axes, methods in zip((left, right), over_seeds.values()):
            for label, ((epochs, means), deviations) in methods.items():
                if any(deviations):
                    band = [(mean - deviation, mean + deviation) for mean, deviation in zip(means, deviations)]
                    axes.fill_between(epochs, *zip(*band), color=looks[label][0], alpha=0.15, linewidth=0)
        return save(figure, path)


def _means(runs: Mapping[str, Sequence[Records]], metric: str) -> dict[str, tuple[Series, list[float]]]:
    """The mean of ``metric`` over the runs of each label, and the standard deviations; empty if it was not recorded."""
    curves = {label: mean_curve(records, metric) for label, records in runs.items()}
    return {label: ((curve.epochs, curve.mean), curve.std) if curve else (([], []), []) for label, curve in curves.items()}


def in_stages(curves: Curves, stages: int) -> dict[str, Series]:
    """The part of each block's curve in the stage that trains the block; epochs are counted from the beginning of the stage.

    ``curves`` are those of a sequential run with ``stages`` stages of equal length, as :func:`block_curves` returns them.
    """
    last = max((max(epochs) for epochs, _ in curves.values() if epochs), default=0.0)
    length = last / stages
    staged = {}
    for label, (epochs, values) in curves.items():
        start = (int(label.split()[1]) - 1) * length
        inside = [(epoch - start, value) for epoch, value in zip(epochs, values) if start < epoch <= start + length]
        staged[label] = ([epoch for epoch, _ in inside], [value for _, value in inside])
    return staged


def draw_learning_curves(parallel: Records, sequential: Records, path: Path) -> Path:
    """Draw the test accuracy (percent) of a middle and the last block, and the training loss of every block, in both forms.

    Epochs of the sequential form are counted from the beginning of each block's own stage.
    """
    accuracy = block_curves(parallel, "test/accuracy")
    staged = in_stages(block_curves(sequential, "test/accuracy"), len(accuracy))
    blocks = list(accuracy)
    last, middle = blocks[-1], blocks[(len(blocks) - 1) // 2]
    loss = block_curves(parallel, "train/loss")
    staged_loss = in_stages(block_curves(sequential, "train/loss"), len(accuracy))
    forms = {"parallel": (accuracy, BLUE), "sequential": (staged, VERMILLION)}
    both = {f"{label}, {form}": curves[label] for label in (middle, last) for form, (curves, _) in forms.items()}
    looks: dict[str, tuple[str, Line]] = {
        f"{label}, {form}": (color, "--" if label == middle != last else "-")
        for label in (middle, last)
        for form, (_, color) in forms.items()
    }
    with styled():
        figure = Figure(figsize=(9.6, 6.2))
        grid = figure.subplots(2, 2)
        _panel(grid[0, 0], f"Test accuracy of {last} (percent)", {form: curves[last] for form, (curves, _) in forms.items()})
        _panel(grid[0, 1], "Test accuracy (percent)", both, looks)
        _panel(grid[1, 0], "Training loss, parallel", loss)
        _panel(grid[1, 1], "Training loss, sequential", staged_loss)
        for axes in grid.flat:
            axes.set_xlabel("epoch in which the block is trained")
        return save(figure, path)


@dataclass(frozen=True)
class SweepPoint:
    """The settings and the last test accuracy (percent) of one finished asynchronous run."""

    slow_block: int | None
    slowdown: float
    buffer_size: int
    accuracy: float


def draw_slowdown(points: Iterable[SweepPoint], path: Path) -> Path:
    """Draw test accuracy (percent) over the slow-down, with a curve per slow block: the mean over seeds; dots are single runs."""
    points = list(points)
    groups = {
        f"block {block} slow": [(point.slowdown, point.accuracy) for point in points if point.slow_block == block]
        for block in sorted({point.slow_block for point in points if point.slow_block is not None})
    }
    return _draw_sweep(groups, "times slower", path, logarithmic=False)


def draw_buffer_size(points: Iterable[SweepPoint], path: Path) -> Path:
    """Draw test accuracy (percent) over the size of the buffers: the mean over seeds; dots are single runs."""
    groups = {"": [(float(point.buffer_size), point.accuracy) for point in points]}
    return _draw_sweep(groups, "mini-batches kept between two blocks", path, logarithmic=True)


def _draw_sweep(groups: Mapping[str, Sequence[tuple[float, float]]], label: str, path: Path, *, logarithmic: bool) -> Path:
    with styled():
        figure = Figure(figsize=(5.2, 3.4))
        axes = figure.subplots()
        ends = {}
        for (name, pairs), color in zip(groups.items(), COLORS):
            values = sorted({value for value, _ in pairs})
            means = [mean(accuracy for value, accuracy in pairs if value == at) for at in values]
            axes.plot(values, means, color=color)
            axes.plot(*zip(*pairs), "o", color=color, markersize=3, alpha=0.5, linestyle="none")
            ends[name] = (means[-1], color)
        axes.set_title("Test accuracy (percent)")
        axes.set_xlabel(label)
        if logarithmic:
            sizes = sorted({value for pairs in groups.values() for value, _ in pairs})
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axes.minorticks_off()
        label_ends(axes, {name: end for name, end in ends.items() if name})
        return save(figure, path)


def _panel(
    axes: Axes, title: str, curves: Curves, looks: Mapping[str, tuple[str, Line]] | None = None, *, named: bool = True
) -> None:
    """Draw ``curves``, with labels at their ends if ``named``; colors and line styles come from ``looks`` if it has the label."""
    ends = {}
    for number, (label, (epochs, values)) in enumerate(curves.items()):
        color, line = (looks or {}).get(label, (COLORS[number % len(COLORS)], "-"))
        if epochs:
            axes.plot(epochs, values, line, color=color, marker="o" if len(epochs) <= 20 else None, markersize=3)
            ends[f"{label} {values[-1]:.3g}"] = (values[-1], color)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    if named:
        label_ends(axes, ends)


def sweep_point(run: Path) -> SweepPoint:
    """The point of the finished asynchronous run in the directory ``run``. Raises ``KeyError`` for runs of other algorithms."""
    algorithm = read_yaml(run / "config.yaml")["algorithm"]
    _, accuracies = series(read_metrics(run / "metrics.jsonl"), "test/accuracy")
    return SweepPoint(algorithm["slow_block"], algorithm["slowdown"], algorithm["buffer_size"], accuracies[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one figure from finished runs, as the command line ``arguments`` say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("figure", choices=["methods", "learning_curves", "slowdown", "buffer_size"])
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    parser.add_argument(
        "runs",
        nargs="+",
        help="run directories; for methods and learning_curves label=directory (methods: repeat a label for several seeds)",
    )
    options = parser.parse_args(arguments)
    if options.figure in ("methods", "learning_curves"):
        runs: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
        for label, _, run in (run.partition("=") for run in options.runs):
            runs[label].append(read_metrics(Path(run) / "metrics.jsonl"))
        if options.figure == "methods":
            draw_methods(runs, options.out)
        else:
            draw_learning_curves(runs["parallel"][0], runs["sequential"][0], options.out)
        return
    points = [sweep_point(Path(run)) for run in options.runs]
    (draw_slowdown if options.figure == "slowdown" else draw_buffer_size)(points, options.out)


if __name__ == "__main__":
    main()
