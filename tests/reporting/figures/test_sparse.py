"""Figures of sparse training."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.image import imread

from altprop.config.compose import compose
from altprop.config.plain import to_plain
from altprop.config.project import CONF
from altprop.reporting.figures import sparse
from altprop.reporting.figures.sparse import (
    METHODS,
    THIN,
    collect,
    draw_accuracy_over_sparsity,
    draw_layers,
    draw_structure,
    method_of,
    sparsity_of,
)


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were saved, as objects."""
    figures: list[Figure] = []
    save = sparse.save
    monkeypatch.setattr(sparse, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def record(epoch: int, layers: int) -> dict[str, float]:
    densities = {f"weights/density/layer{place}": 0.1 * (place + 1) / epoch for place in range(layers)}
    moved = {"weights/updates": int(epoch < 3), "weights/pruned": 10.0, "weights/pruned_again": 0.5, "weights/ever_active": 0.2}
    return {"epoch": epoch, "weights/threshold": 1e-3 * 2**epoch, **densities, **moved}


@pytest.mark.parametrize("layers", [2, 20])
def test_structure(layers, tmp_path):
    path = draw_structure([record(epoch, layers) for epoch in (1, 2, 3)], tmp_path / "structure.png", title="a run")
    assert imread(path).std() > 0


def test_nothing_is_drawn_without_moving_structure(tmp_path):
    assert draw_structure([{"epoch": 1, "train/loss": 1.0}], tmp_path / "structure.png") is None
    assert not any(tmp_path.iterdir())


def test_axes_have_numbers_but_no_formulas(figures, tmp_path):
    draw_structure([record(epoch, 3) for epoch in (1, 2, 3)], tmp_path / "structure.png")
    texts = [label.get_text() for axes in figures[0].axes for label in axes.get_yticklabels(which="both")]
    assert any(texts)
    assert not any("$" in text for text in texts)


@pytest.mark.parametrize("layers", [3, 24, 49])
def test_sparsity_of_layers_at_the_end(layers, figures, tmp_path):
    """A bar with name and number for every layer in the last record, and a label for the overall sparsity."""
    densities = {f"weights/density/layer{place}": 0.02 * (place + 1) for place in range(layers)}
    records = [
        {"epoch": 1, "weights/density": 1.0, **dict.fromkeys(densities, 1.0)},
        {"epoch": 2, "weights/density": 0.1, **densities},
    ]
    path = draw_layers([*records, {"epoch": 3}], tmp_path / "layers.png", title="a run")
    assert imread(path).std() > 0
    (axes,) = figures[0].axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([98 - 2 * place for place in range(layers)])
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"layer{n}  {98 - 2 * n:.3g}" for n in range(layers)]
    assert [text.get_text() for text in axes.texts] == ["all 90"]
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(one.x1 <= other.x0 + 1 for one, other in pairwise(boxes))
    assert draw_layers([{"epoch": 1, "train/loss": 1.0}], tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


def test_every_row_of_the_paper_is_a_method():
    stems = [path.stem for path in (CONF / "experiment" / "dsr").glob("*_*.yaml")]
    others = {stem for stem in stems if method_of(f"dsr/{stem}") == ("", "")}
    assert others == {"wrn_stop", "quick_wrn"}
    assert {method_of(f"dsr/{stem}")[1] for stem in stems} - {"", "dense"} == set(METHODS)
    assert method_of("dsr/wrn_dynamic_g2") == ("dsr/wrn", "dynamic_g2")
    assert method_of("dsr/mnist_mask_init") == ("dsr/mnist", "mask_init")


@pytest.mark.parametrize("rows", ["wrn", "r50"])
def test_thin_networks_are_drawn_at_a_sparsity(rows):
    row = to_plain(compose([f"experiment=dsr/{rows}_thin"]))[0]
    swept = yaml.safe_load((CONF.parent / "sweeps" / "dsr" / f"{rows}_thin.yaml").read_text())["hydra"]["sweeper"]["params"]
    widths = [float(width) for width in swept["model.width"].split(",")]
    assert row["model"]["width"] in widths
    sparsities = [sparsity_of(f"dsr/{rows}", "thin", {**row, "model": {"width": width}}) for width in widths]
    assert sparsities == [THIN[rows][width] for width in widths]
    assert sparsity_of(f"dsr/{rows}", "thin", {**row, "model": {"width": 3.0}}) is None
    assert sparsity_of("dsr/mnist", "static", {"algorithm": {"weights": {"sparsity": {"conv": 0.9}}}}) is None


def test_accuracies_are_those_of_finished_runs(tmp_path):
    def write(name: str, key: str, sparsity: float | None, accuracy: float, status: str = "done") -> None:
        run = tmp_path / name / key
        run.mkdir(parents=True)
        weights = {} if sparsity is None else {"sparsity": sparsity}
        (run / "config.yaml").write_text(yaml.safe_dump({"algorithm": {"weights": weights}}))
        (run / "status.json").write_text(json.dumps({"status": status, "last": {"test/accuracy": accuracy}}))

    write("quick_dynamic", "a", 0.9, 95.0)
    write("quick_dynamic", "b", 0.9, 97.0)
    write("quick_dynamic", "c", 0.98, 90.0)
    write("quick_static", "d", 0.9, 50.0, status="failed")
    write("quick_dense", "e", None, 98.0)
    write("quick_mask_init", "f", 0.9, 94.0)
    write("quick_dynamic_g2", "g", 0.9, 93.0)
    results, dense = collect(tmp_path, "quick")
    assert results["dynamic"] == {0.9: [95.0, 97.0], 0.98: [90.0]}
    assert results["static"] == {}
    assert (results["mask_init"], results["dynamic_g2"]) == ({0.9: [94.0]}, {0.9: [93.0]})
    assert dense == [98.0]
    path = draw_accuracy_over_sparsity(results, dense, tmp_path / "accuracy.png")
    assert imread(path).std() > 0
    with pytest.raises(ValueError, match="no accuracies"):
        draw_accuracy_over_sparsity({"static": {}}, dense, tmp_path / "none.png")


def test_every_method_has_a_distinct_line(figures, tmp_path):
    results = {method: {0.8: [90.0 + place], 0.9: [89.0 + place]} for place, method in enumerate(METHODS)}
    draw_accuracy_over_sparsity(results, [], tmp_path / "accuracy.png")
    (axes,) = figures[0].axes
    assert len({(color, line) for _, color, line in METHODS.values()}) == len(METHODS)
    assert {text.get_text() for text in axes.texts} == {label for label, *_ in METHODS.values()}
