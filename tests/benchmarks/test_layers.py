"""The scripts of ``benchmarks/`` import each other without circles, imports inside functions included."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

from tests.test_layers import imported

SCRIPTS = {path.stem: path for path in (Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py")}


def test_no_circles() -> None:
    graph = {}
    for script, path in SCRIPTS.items():
        modules = {name.partition(".")[0] for name in imported(path)}
        graph[script] = {module for module in modules if module in SCRIPTS and module != script}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
    assert graph["reporting"] == {"measuring"}
    assert graph["measuring"] == set()
