from __future__ import annotations

import json

import pytest
import yaml
from matplotlib.image import imread

from altprop.reporting.sparse_figures import collect, draw_accuracy_over_sparsity, draw_structure


def record(epoch: int, layers: int) -> dict[str, float]:
    densities = {f"weights/density/layer{place}": 0.1 * (place + 1) / epoch for place in range(layers)}
    moved = {"weights/updates": int(epoch < 3), "weights/pruned": 10.0, "weights/pruned_again": 0.5, "weights/ever_active": 0.2}
    return {"epoch": epoch, "weights/threshold": 1e-3 * 2**epoch, **densities, **moved}


@pytest.mark.parametrize("layers", [2, 20])
def test_structure(layers, tmp_path):
    path = draw_structure([record(epoch, layers) for epoch in (1, 2, 3)], tmp_path / "structure.png", title="a run")
    assert imread(path).std() > 0


def test_nothing_moves_nothing_is_drawn(tmp_path):
    assert draw_structure([{"epoch": 1, "train/loss": 1.0}], tmp_path / "structure.png") is None
    assert not any(tmp_path.iterdir())


def test_accuracies_are_collected_from_finished_runs(tmp_path):
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
    results, dense = collect(tmp_path, "quick")
    assert results["dynamic"] == {0.9: [95.0, 97.0], 0.98: [90.0]}
    assert results["static"] == {}
    assert dense == [98.0]
    path = draw_accuracy_over_sparsity(results, dense, tmp_path / "accuracy.png")
    assert imread(path).std() > 0
    with pytest.raises(ValueError, match="no accuracies"):
        draw_accuracy_over_sparsity({"static": {}}, dense, tmp_path / "none.png")
