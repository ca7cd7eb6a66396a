"""Figures of block-wise training and the data that they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from altprop.reporting.figures import greedy
from altprop.reporting.figures.greedy import (
    SweepPoint,
    block_curves,
    draw_buffer_size,
    draw_methods,
    in_stages,
    main,
    sweep_point,
)
from tests.reporting.fixtures import PNG


def records(blocks: int = 12, epochs: int = 4, sequential: bool = False) -> list[dict[str, Any]]:
    result = []
    for epoch in range(1, 1 + epochs * (blocks if sequential else 1)):
        trained = min(blocks, 1 + (epoch - 1) // epochs) if sequential else blocks
        record: dict[str, Any] = {"epoch": float(epoch), "step": epoch, "train/loss": 1 / epoch, "test/accuracy": 50.0 + epoch}
        for block in range(1, trained + 1):
            record[f"test/block{block}/accuracy"] = 40.0 + block + epoch
            if not sequential or block == trained:
                record[f"train/block{block}/loss"] = 2.0 / (block + epoch)
        record["test/ensemble/accuracy"] = 60.0
        result.append(record)
    return result


def write_run(folder: Path, content: list[dict[str, Any]], algorithm: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in content))
    (folder / "config.yaml").write_text(json.dumps({"algorithm": algorithm or {}}))
    return folder


def test_blocks_are_in_the_order_of_the_network() -> None:
    curves = block_curves(records(), "test/accuracy")
    assert list(curves) == [f"block {number}" for number in range(1, 13)]
    assert curves["block 10"] == ([1.0, 2.0, 3.0, 4.0], [51.0, 52.0, 53.0, 54.0])
    assert not block_curves(records(), "validation/accuracy")


def test_epochs_count_from_the_beginning_of_a_stage() -> None:
    staged = in_stages(block_curves(records(3, 4, sequential=True), "test/accuracy"), 3)
    for block, (epochs, values) in enumerate(staged.values(), start=1):
        assert epochs == [1.0, 2.0, 3.0, 4.0]
        assert values == [40.0 + block + 4 * (block - 1) + epoch for epoch in epochs]


def test_figures_of_runs(tmp_path: Path) -> None:
    parallel = write_run(tmp_path / "parallel", records(4))
    sequential = write_run(tmp_path / "sequential", records(4, sequential=True))
    main(["learning_curves", "--out", str(tmp_path / "curves.png"), f"parallel={parallel}", f"sequential={sequential}"])
    main(["methods", "--out", str(tmp_path / "methods.png"), f"backprop={parallel}", f"DGL={sequential}"])
    for name in ("curves", "methods"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_figures_of_sweeps(tmp_path: Path) -> None:
    runs = []
    for slowdown in (1.0, 1.2):
        for seed in range(2):
            settings = {"slow_block": 1 + seed, "slowdown": slowdown, "buffer_size": 30}
            runs.append(str(write_run(tmp_path / f"{slowdown}-{seed}", records(2), settings)))
    main(["slowdown", "--out", str(tmp_path / "slowdown.png"), *runs])
    assert (tmp_path / "slowdown.png").exists()
    assert sweep_point(Path(runs[0])) == SweepPoint(slow_block=1, slowdown=1.0, buffer_size=30, accuracy=54.0)
    points = [SweepPoint(4, 1.1, size, 80.0 + size + seed) for size in (1, 10) for seed in range(2)]
    assert draw_buffer_size(points, tmp_path / "size.png").exists()


@pytest.mark.parametrize(("labels", "below"), [(["DGL", "DNI"], 0), (["DGL", "x" * 40], 1), ([f"run {n}" for n in range(9)], 1)])
def test_many_or_long_labels_are_in_a_legend_below(
    labels: list[str], below: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(greedy, "save", lambda figure, path: figures.append(figure) or path)
    draw_methods({label: [records(2)] for label in labels}, tmp_path / "methods.png")
    [figure] = figures
    assert len(figure.legends) == below
    assert [len(axes.texts) for axes in figure.axes] == [0 if below else len(labels)] * 2
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(labels)


def test_methods_are_means_over_seeds_with_a_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(greedy, "save", lambda figure, path: figures.append(figure) or path)
    low = [{"epoch": 1.0, "test/accuracy": 50.0, "train/loss": 2.0}, {"epoch": 2.0, "test/accuracy": 60.0, "train/loss": 1.0}]
    high = [{**record, "test/accuracy": record["test/accuracy"] + 2.0} for record in low]
    draw_methods({"DGL": [low, high], "DNI": [low]}, tmp_path / "methods.png")
    accuracy, loss = figures[0].axes
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[51.0, 61.0], [50.0, 60.0]]
    [band] = accuracy.collections
    edges = sorted({round(float(y), 4) for _, y in band.get_paths()[0].vertices})
    assert edges == [round(at + sign * 2**0.5, 4) for at in (51, 61) for sign in (-1, 1)]
    assert not loss.collections


def test_axis_of_buffer_sizes_has_a_tick_per_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(greedy, "save", lambda figure, path: figures.append(figure) or path)
    draw_buffer_size([SweepPoint(4, 1.1, size, 80.0 + size) for size in (1, 5, 30)], tmp_path / "size.png")
    [axes] = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "30"]
    assert not list(axes.get_xticks(minor=True))


def test_runs_of_other_algorithms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        sweep_point(write_run(tmp_path / "other", records(1), {"block_size": 1}))
