"""``task=check_gradients``: tables and figures of fresh and trained networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.config.build import build
from altprop.config.compose import compose
from altprop.problems import ConfigError, RunFailed

SMALL = [
    "model=eqprop_mlp",
    "model.hidden=[8]",
    "algorithm=equilibrium_propagation",
    "algorithm.free_steps=12",
    "algorithm.nudge_steps=4",
    "dataset.limit_train=100",
    "dataset.limit_test=20",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.figures=false",
]


def run(tmp_path: Path, *overrides: str) -> Any:
    parts, task = build(compose([*SMALL, f"paths.outputs={tmp_path}", *overrides]))
    return task(parts), parts


def test_a_fresh_network_is_checked_with_both_signs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, parts = run(tmp_path, "task=check_gradients", "task.samples=5")
    folder = parts.directory / "gradient_check"
    assert json.loads((folder / "check.json").read_text()) == result
    assert result["parameters"] == "fresh"
    assert (result["samples"], result["steps"], result["beta"]) == (5, 4, 0.5)
    assert set(result["bias_ratios"]) == {"layers.0.weight", "layers.1.weight"}
    assert {"layers.0.bias", "states.0", "states.1"} < set(result["rows"])
    assert "layers.1.weight" in capsys.readouterr().out
    drawn = {path.name for path in folder.glob("*.png")}
    assert {"bars.png", "layers.0.weight.png", "states.1.png"} <= drawn
    series = torch.load(folder / "series.pt", weights_only=True)
    assert series["forward"]["layers.0.weight"].shape == (4, 8, 784)


def test_a_trained_network_is_checked_from_its_run_or_from_a_file(tmp_path: Path) -> None:
    _, parts = run(tmp_path, "trainer.duration=1ep")
    own, _ = run(tmp_path, "trainer.duration=1ep", "task=check_gradients", "task.figures=false", "task.beta=0.1")
    file = parts.directory / "checkpoints" / "last.pt"
    other, _ = run(
        tmp_path, "name=elsewhere", "task=check_gradients", "task.figures=false", "task.beta=0.1", f"task.checkpoint={file}"
    )
    fresh, _ = run(tmp_path, "name=fresh", "task=check_gradients", "task.figures=false", "task.beta=0.1")
    assert own["parameters"] == "last.pt"
    assert own["rows"] == other["rows"] != fresh["rows"]


def test_the_check_of_continual_updates_moves_parameters_and_uses_both_signs(tmp_path: Path) -> None:
    """Sections 2.8 and 2.9: the check follows the algorithm unless the task says otherwise."""
    overrides = [
        "algorithm=continual_equilibrium_propagation",
        "algorithm.nudge_steps=4",
        "task=check_gradients",
        "task.figures=false",
    ]
    published, _ = run(tmp_path, *overrides, "algorithm.third_phase=published")
    assert set(published["bias_ratios"]) == {"layers.0.weight", "layers.1.weight"}
    one_sided, _ = run(tmp_path, *overrides, "algorithm.third_phase=none")
    assert one_sided["bias_ratios"] == {}
    still, _ = run(tmp_path, *overrides, "algorithm.third_phase=none", "task.continual=false")
    assert still["rows"]["layers.0.weight"]["rmse"] != one_sided["rows"]["layers.0.weight"]["rmse"]


def test_mistakes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.steps: 13; from 1 to algorithm\.free_steps"):
        run(tmp_path, "task=check_gradients", "task.steps=13")
    with pytest.raises(RunFailed, match=r"nowhere\.pt does not exist"):
        run(tmp_path, "task=check_gradients", f"task.checkpoint={tmp_path}/nowhere.pt")
    here = [f"paths.outputs={tmp_path}", "trainer.device=cpu", "task=check_gradients"]
    parts, task = build(compose(here))
    with pytest.raises(ConfigError, match="has no energy"):
        task(parts)
    parts, task = build(compose([*here, "model=eqprop_mlp", "algorithm=backprop_through_time", "task.steps=2"]))
    with pytest.raises(ConfigError, match=r"task\.beta: null"):
        task(parts)
