"""The papers' figures of the runs of a report: what each run's records allow, and what several of them show together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from altprop.reporting.collect import Row, last_value
from altprop.reporting.figures import of_records
from altprop.reporting.figures import sparse as sparse_figures
from altprop.reporting.figures.binarization import draw_sensitivity
from altprop.reporting.figures.greedy import (
    SweepPoint,
    block_curves,
    draw_blocks,
    draw_buffer_size,
    draw_learning_curves,
    draw_methods,
    draw_slowdown,
)
from altprop.reporting.runs import Run
from altprop.reporting.sensitivity import SensitivityRun, mean_accuracies, read_run
from altprop.reporting.tables.columns import experiment
from altprop.reporting.tables.side_by_side import Comparison

GRADIENT_CHECK = "gradient_check"
"""Folder of a run into which ``task=check_gradients`` draws."""
ONE_LAYER = "algorithm.weights.order="
"""What tells the sensitivity runs of one network apart."""

AT_ONCE, IN_TURN = "DecoupledGreedy", "SequentialGreedy"
"""What rows call greedy learning of all blocks at once and of one after the other."""

SWEEPS: Mapping[str, tuple[tuple[str, ...], Callable[[Sequence[SweepPoint], Path], Path]]] = {
    "slowdown": (("algorithm.slow_block=", "algorithm.slowdown="), draw_slowdown),
    "buffer_size": (("algorithm.buffer_size=",), draw_buffer_size),
}
"""What asynchronous runs are swept over: the settings in which the runs of one figure may differ, and how it is drawn."""


def draw(rows: Sequence[Row], compared: Sequence[Comparison], folder: Path) -> dict[str, Path]:
    """Every figure that the finished runs allow, into ``folder``; by title.

    Of each row those of its first seed: curves, layers that become binary, moving structure, sparsity of layers, alignment,
    blocks, and the gradient check of equilibrium propagation where the run has been checked. Together: accuracy curves, means
    over seeds, of rows that share model and data (activations, estimators, algorithms), greedy learning at once beside one block
    after the other, accuracy over sparsity, over slow-down and buffer size, and bars of the sensitivity of every layer.
    """
    found: dict[str, Path] = {}
    for row in rows:
        if row.finished:
            found |= _of_run(row.finished[0], experiment(row), folder)
    for number, comparison in enumerate(compared, start=1):
        runs_of = {experiment(row): [run.records for run in row.finished] for row in comparison.rows}
        found[f"{comparison.title}, mean over seeds"] = draw_methods(runs_of, folder / f"side_by_side_{number}.png")
        found |= _learning_curves(comparison, folder / f"learning_curves_{number}.png")
    runs = [run for row in rows for run in row.finished]
    return found | _over_sparsity(runs, folder) | _asynchronous(rows, folder) | _sensitivities(rows, folder)


def _of_run(run: Run, label: str, folder: Path) -> dict[str, Path]:
    own = folder / run.name / run.key
    title = f"{label}, seed {run.seed}"
    paths = of_records.draw(run.records, own, title=title) if run.records else []
    if block_curves(run.records, "train/loss"):
        paths.append(draw_blocks(run.records, own / "blocks.png"))
    paths += sorted((run.path / GRADIENT_CHECK).glob("*.png"))
    return {f"{title}: {path.stem}": path for path in paths}


def _learning_curves(comparison: Comparison, path: Path) -> dict[str, Path]:
    """Blocks trained at once beside blocks trained one after the other: the first row of each with the same number of blocks."""
    rows: dict[tuple[str, int], Row] = {}
    for row in comparison.rows:
        if row.algorithm in (AT_ONCE, IN_TURN):
            rows.setdefault((row.algorithm, len(block_curves(row.finished[0].records, "test/accuracy"))), row)
    for (algorithm, blocks), parallel in rows.items():
        sequential = rows.get((IN_TURN, blocks))
        if algorithm == AT_ONCE and sequential is not None and blocks > 1:
            title = f"{experiment(parallel)} and {experiment(sequential)}: blocks at once and one after the other"
            return {title: draw_learning_curves(parallel.finished[0].records, sequential.finished[0].records, path)}
    return {}


def _over_sparsity(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """One figure for every set of experiments ``<rows>_<method>``, as :mod:`.sparse_figures` names the methods."""
    sets: dict[str, dict[str, dict[float, list[float]]]] = defaultdict(lambda: {name: {} for name in sparse_figures.METHODS})
    dense: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        rows, method = sparse_figures.method_of(run.name)
        accuracy = last_value(run.records, "test/accuracy")
        if not method or accuracy is None:
            continue
        if method == sparse_figures.DENSE:
            dense[rows].append(accuracy)
            continue
        sparsity = sparse_figures.sparsity_of(rows, method, run.config)
        if sparsity is not None:
            sets[rows][method].setdefault(sparsity, []).append(accuracy)
    return {
        f"{rows}: accuracy over sparsity": sparse_figures.draw_accuracy_over_sparsity(
            results, dense[rows], folder / rows / "accuracy_over_sparsity.png", title=f"{rows}: accuracy over sparsity"
        )
        for rows, results in sets.items()
    }


def _asynchronous(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Accuracy over slow-down and over buffer size, where runs of one experiment differ in that alone."""
    found: dict[str, Path] = {}
    for setting, (varied, function) in SWEEPS.items():
        points: dict[str, list[SweepPoint]] = defaultdict(list)
        for row in rows:
            others = [word for word in row.variant.split() if not word.startswith(varied)]
            for run in row.finished:
                algorithm, accuracy = run.config.get("algorithm") or {}, last_value(run.records, "test/accuracy")
                if accuracy is not None and {"slow_block", "slowdown", "buffer_size"} <= set(algorithm):
                    point = SweepPoint(algorithm["slow_block"], algorithm["slowdown"], algorithm["buffer_size"], accuracy)
                    points[" ".join([row.name, *others])].append(point)
        for title, own in points.items():
            if len({getattr(point, setting) for point in own}) > 1:
                file = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', title)}_{setting}.png"
                found[f"{title}: {setting.replace('_', ' ')}"] = function(own, file)
    return found


def _sensitivities(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Bars for every configuration that has run each layer of its network as the only binary one."""
    said: dict[tuple[str, str], list[SensitivityRun]] = defaultdict(list)
    for row in rows:
        settings = " ".join(word for word in row.variant.split() if not word.startswith(ONE_LAYER))
        for run in row.finished:
            with suppress(ValueError):  # a run of anything else
                one = read_run(run.records)
                said[row.name, settings].append(one)
    found: dict[str, Path] = {}
    for (name, settings), own in said.items():
        means = {layer: mean for layer, mean in mean_accuracies(own).items() if mean is not None}
        if len(means) == len(own[0].layers):
            title = f"{name} {settings}".rstrip()
            file = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', title)}_sensitivity.png"
            found[f"{title}: sensitivity"] = draw_sensitivity(
                list(means), list(means.values()), file, metric=own[0].metric, title=f"{title}: one layer binary"
            )
    return found
