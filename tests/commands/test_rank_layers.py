"""Rank layers from run directories, and train in that order."""

from __future__ import annotations

import json

import pytest

from altprop.commands.rank_layers import rank_layers, rank_then_train
from altprop.config.build import build
from altprop.config.compose import compose
from altprop.problems import ConfigError

LAYERS = ("features.0.linear", "features.1.linear", "classifier.linear")
FAST = ["trainer.figures=false", "trainer.threads=1", "dataset.limit_train=300", "dataset.limit_test=100"]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("ALTPROP_OUTPUTS", str(tmp_path))
    return tmp_path


def parts_of(experiment, *overrides):
    parts, _ = build(compose([f"experiment=iterative/{experiment}", *FAST, *overrides]))
    return parts


def pretend_run(layer, accuracies, *overrides, status="done"):
    """Write a run directory of quick_sens with these validation accuracies."""
    parts = parts_of("quick_sens", f"algorithm.weights.order={layer}", *overrides)
    parts.directory.mkdir(parents=True)
    (parts.directory / "config.yaml").write_text(parts.config_text)
    (parts.directory / "status.json").write_text(json.dumps({"status": status}))
    flags = {f"weights/binary/{name}": float(place == layer) for place, name in enumerate(LAYERS, start=1)}
    records = [{"epoch": 1.0 + epoch, "validation/accuracy": value, **flags} for epoch, value in enumerate(accuracies)]
    (parts.directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_ranks_by_the_best_validation_accuracy(outputs):
    pretend_run(1, [80.0, 91.0])
    pretend_run(2, [95.0, 70.0])
    pretend_run(3, [91.0, 60.0])
    pretend_run(3, [99.0, 99.0], "optimizer.lr=0.01")  # another configuration
    file = rank_layers(parts_of("quick_sens"))
    assert file == outputs / "iterative" / "quick_sens" / "order.json"
    content = json.loads(file.read_text())
    assert content["order"] == [2, 1, 3]
    assert content["layers"] == list(LAYERS)
    assert content["accuracy"] == [91.0, 95.0, 91.0]
    assert (file.parent / "sensitivity.png").stat().st_size > 1000


def test_several_seeds_are_averaged(outputs):
    for seed, values in ((1, (90.0, 80.0, 70.0)), (2, (50.0, 80.0, 70.0))):
        for layer, value in enumerate(values, start=1):
            pretend_run(layer, [value], f"seed={seed}")
    content = json.loads(rank_layers(parts_of("quick_sens")).read_text())
    assert content["accuracy"] == [70.0, 80.0, 70.0]
    assert [len(runs) for runs in content["runs"].values()] == [2, 2, 2]


def test_a_changed_order_is_logged(outputs, caplog):
    for layer, value in enumerate((90.0, 80.0, 70.0), start=1):
        pretend_run(layer, [value], "seed=1")
    rank_layers(parts_of("quick_sens"))
    rank_layers(parts_of("quick_sens"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    pretend_run(3, [100.0], "seed=2")
    rank_layers(parts_of("quick_sens"))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("the order was [1, 2, 3] before")
    assert "resume=false" in warning


def test_missing_runs_are_reported(outputs):
    with pytest.raises(ConfigError, match="no finished run of this configuration"):
        rank_layers(parts_of("quick_sens"))
    pretend_run(2, [90.0])
    pretend_run(3, [90.0], status="running")
    with pytest.raises(ConfigError, match="layers 1, 3") as refusal:
        rank_layers(parts_of("quick_sens"))
    assert "algorithm.weights.order=1,3" in str(refusal.value)


def test_different_configurations_are_not_mixed(outputs):
    pretend_run(1, [90.0])
    pretend_run(2, [90.0], "optimizer.lr=0.01")
    with pytest.raises(ConfigError, match="differ in more"):
        rank_then_train(parts_of("quick_guided"))


def test_an_order_that_does_not_come_from_sensitivity_is_refused(outputs):
    with pytest.raises(ConfigError, match="from_sensitivity"):
        rank_then_train(parts_of("quick"))


def test_trains_in_the_ranked_order(outputs):
    for layer, value in enumerate((70.0, 80.0, 90.0), start=1):
        pretend_run(layer, [value])
    parts = parts_of("quick_guided", "trainer.duration=2ep", "algorithm.weights.epochs_per_layer=1")
    assert rank_then_train(parts)["status"] == "done"
    assert parts.algorithm.weights.positions == (3, 2, 1)
    records = [json.loads(line) for line in (parts.directory / "metrics.jsonl").read_text().splitlines()]
    assert [[record[f"weights/binary/{name}"] for name in LAYERS] for record in records] == [[0, 0, 1], [0, 1, 1]]
