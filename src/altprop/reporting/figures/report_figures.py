"""The figures of a report: of single runs, as far as their records contain the data, and of several runs together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from altprop.reporting.comparisons import Comparison
from altprop.reporting.figures import run_figures
from altprop.reporting.figures import sparse as sparse_figures
from altprop.reporting.figures.binarization import draw_sensitivity
from altprop.reporting.figures.costs import draw_over_cost
from altprop.reporting.figures.greedy import (
    SweepPoint,
    block_curves,
    draw_blocks,
    draw_buffer_size,
    draw_learning_curves,
    draw_methods,
    draw_slowdown,
)
from altprop.reporting.rows import Row, last_value
from altprop.reporting.runs import Run
from altprop.reporting.searches import Search
from altprop.reporting.sensitivity import SensitivityRun, mean_accuracies, read_sensitivity

GRADIENT_CHECK = "gradient_check"
"""The folder of a run into which ``task=check_gradients`` draws."""
LAYER_OVERRIDE = "algorithm.weights.order="
"""What distinguishes the sensitivity runs of one network."""

PARALLEL, SEQUENTIAL = "DecoupledGreedy", "SequentialGreedy"
"""The names in rows of greedy learning of all blocks in parallel and of one block after the other."""

SWEEPS: Mapping[str, tuple[tuple[str, ...], Callable[[Sequence[SweepPoint], Path], Path]]] = {
    "slowdown": (("algorithm.slow_block=", "algorithm.slowdown="), draw_slowdown),
    "buffer_size": (("algorithm.buffer_size=",), draw_buffer_size),
}
"""The sweeps of asynchronous runs: the overrides in which the runs of one figure may differ, and the function that draws it."""


def draw(rows: Sequence[Row], comparisons: Sequence[Comparison], searches: Sequence[Search], folder: Path) -> dict[str, Path]:
    """Draw into ``folder`` every figure for which the finished runs contain the data; return the paths by title.

    - Of each row's first seed: learning curves, layers that become binary, moving structure, sparsity of layers, alignment,
      blocks, and the gradient check of equilibrium propagation if the run has one.
    - Of several runs: the accuracy curves of each comparison (means over seeds), parallel and sequential greedy learning,
      accuracy over sparsity, over slow-down and over buffer size, and the sensitivity of every layer; and for every sweep with a
      search, accuracy over cost of the runs after it.
    """
    figures: dict[str, Path] = {}
    for row in rows:
        if row.finished:
            figures |= _of_run(row.finished[0], row.label, folder)
    for number, comparison in enumerate(comparisons, start=1):
        records = {row.label: [run.records for run in row.finished] for row in comparison.rows}
        figures[f"{comparison.title}, mean over seeds"] = draw_methods(records, folder / f"side_by_side_{number}.png")
        figures |= _parallel_and_sequential(comparison, folder / f"learning_curves_{number}.png")
    runs = [run for row in rows for run in row.finished]
    figures |= {
        f"{search.group}: accuracy over cost": draw_over_cost(search, folder / _file_name(search.group, "cost"))
        for search in searches
    }
    return figures | _over_sparsity(runs, folder) | _asynchronous(rows, folder) | _sensitivities(rows, folder)


def _of_run(run: Run, label: str, folder: Path) -> dict[str, Path]:
    """Every figure of one run."""
    run_folder = folder / run.name / run.key
    title = f"{label}, seed {run.seed}"
    paths = run_figures.draw(run.records, run_folder, title=title) if run.records else []
    if block_curves(run.records, "train/loss"):
        paths.append(draw_blocks(run.records, run_folder / "blocks.png"))
    paths += sorted((run.path / GRADIENT_CHECK).glob("*.png"))
    return {f"{title}: {path.stem}": path for path in paths}


def _parallel_and_sequential(comparison: Comparison, path: Path) -> dict[str, Path]:
    """Greedy learning in parallel and in sequence: the first row of each with the same number of blocks, if there are both."""
    rows: dict[tuple[str, int], Row] = {}
    for row in comparison.rows:
        if row.algorithm in (PARALLEL, SEQUENTIAL):
            rows.setdefault((row.algorithm, len(block_curves(row.finished[0].records, "test/accuracy"))), row)
    for (algorithm, blocks), parallel in rows.items():
        sequential = rows.get((SEQUENTIAL, blocks))
        if algorithm == PARALLEL and sequential is not None and blocks > 1:
            title = f"{parallel.label} and {sequential.label}: blocks in parallel and in sequence"
            return {title: draw_learning_curves(parallel.finished[0].records, sequential.finished[0].records, path)}
    return {}


def _over_sparsity(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """One figure for every set of experiments ``<rows>_<method>``; :data:`.sparse.METHODS` are the methods."""
    results: dict[str, dict[str, dict[float, list[float]]]] = defaultdict(lambda: {name: {} for name in sparse_figures.METHODS})
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
            results[rows][method].setdefault(sparsity, []).append(accuracy)
    return {
        f"{rows}: accuracy over sparsity": sparse_figures.draw_accuracy_over_sparsity(
            methods, dense[rows], folder / rows / "accuracy_over_sparsity.png", title=f"{rows}: accuracy over sparsity"
        )
        for rows, methods in results.items()
    }


def _asynchronous(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Accuracy over slow-down and over buffer size, for runs of one experiment that differ in nothing else."""
    figures: dict[str, Path] = {}
    for setting, (overrides, function) in SWEEPS.items():
        points: dict[str, list[SweepPoint]] = defaultdict(list)
        for row in rows:
            others = [word for word in row.variant.split() if not word.startswith(overrides)]
            for run in row.finished:
                algorithm, accuracy = run.config.get("algorithm") or {}, last_value(run.records, "test/accuracy")
                if accuracy is not None and {"slow_block", "slowdown", "buffer_size"} <= set(algorithm):
                    point = SweepPoint(algorithm["slow_block"], algorithm["slowdown"], algorithm["buffer_size"], accuracy)
                    points[" ".join([row.name, *others])].append(point)
        for title, sweep in points.items():
            if len({getattr(point, setting) for point in sweep}) > 1:
                figures[f"{title}: {setting.replace('_', ' ')}"] = function(sweep, folder / _file_name(title, setting))
    return figures


def _sensitivities(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """The sensitivity of every layer, for every configuration with a run per layer in which only that layer is binary."""
    outcomes: dict[tuple[str, str], list[SensitivityRun]] = defaultdict(list)
    for row in rows:
        settings = " ".join(word for word in row.variant.split() if not word.startswith(LAYER_OVERRIDE))
        for run in row.finished:
            with suppress(ValueError):  # raised for runs of any other kind
                outcome = read_sensitivity(run.records)
                outcomes[row.name, settings].append(outcome)
    figures: dict[str, Path] = {}
    for (name, settings), runs in outcomes.items():
        means = {layer: mean for layer, mean in mean_accuracies(runs).items() if mean is not None}
        if len(means) == len(runs[0].layers):
            title = f"{name} {settings}".rstrip()
            figures[f"{title}: sensitivity"] = draw_sensitivity(
                list(means),
                list(means.values()),
                folder / _file_name(title, "sensitivity"),
                metric=runs[0].metric,
                title=f"{title}: one layer binary",
            )
    return figures


def _file_name(title: str, kind: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', title)}_{kind}.png"
