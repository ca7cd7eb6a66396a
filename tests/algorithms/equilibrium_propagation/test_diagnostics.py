"""Diagnostics of energy-based networks during training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.diagnostics import CONVERGED, steps_to_convergence, weight_angles
from tests.algorithms.equilibrium_propagation.networks import mini_batch, network_of
from tests.algorithms.equilibrium_propagation.trainings import set_up


@pytest.mark.parametrize(
    ("changes", "steps"),
    [([1.0, 0.5, 0.0, 0.0], 2), ([0.0, 0.0], 0), ([1.0, 1.0], 2), ([1.0, 0.0, 1.0, 0.0], 3), ([CONVERGED, CONVERGED], 0)],
)
def test_steps_to_convergence(changes: list[float], steps: int) -> None:
    assert float(steps_to_convergence(torch.tensor(changes)[:, None])) == steps


def test_angles_of_feedback_weights() -> None:
    model = network_of("max", vector_field=True)
    assert set(weight_angles(model)) == {"feedback.0", "feedback.1"}
    assert all(60 < float(value) < 120 for value in weight_angles(model).values())
    with torch.no_grad():
        model.feedback[0].weight.copy_(model.layers[1].weight)
    assert float(weight_angles(model)["feedback.0"]) == 0.0
    assert weight_angles(network_of("max")) == {}


def test_same_update_turns_feedback_weights_toward_forward_weights() -> None:
    """Decay shrinks their difference; the same update for both does not change it."""
    model = network_of("max", vector_field=True)
    algorithm = EquilibriumPropagation(
        beta=0.3, nudging="symmetric", same_update=True, nudge_steps=5, weight_decays=[0.1] * 3, check_every=2
    )
    set_up(algorithm, model, lr=0.1)
    before = weight_angles(model)
    metrics = [algorithm.train_step(*mini_batch()) for _ in range(5)]
    after = algorithm.epoch_end(0)
    assert float(after["angle/feedback.0"]) < float(before["feedback.0"])
    assert [("check/layers.0.weight/rmse" in step) for step in metrics] == [True, False, True, False, True]
    assert {"convergence/free_steps", "convergence/nudged_steps", "activity/state1/mean"} <= set(after)
    assert 0 < float(after["convergence/free_steps"]) <= 20


def test_figures_of_a_run_and_of_its_checkpoint(tmp_path: Path) -> None:
    algorithm = set_up(EquilibriumPropagation(), network_of("max", vector_field=True), lr=0.1)
    assert list(algorithm.figures(tmp_path)) == []
    algorithm.train_step(*mini_batch())
    algorithm.epoch_end(0)
    names = {path.name for path in algorithm.figures(tmp_path)}
    assert names == {"activity.png", "convergence.png", "weight_angles.png"}
    restored = set_up(EquilibriumPropagation(), network_of("max", vector_field=True), lr=0.1)
    restored.load_state_dict(algorithm.state_dict())
    assert {path.name for path in restored.figures(tmp_path)} == names
    assert restored.angles.lists() == algorithm.angles.lists()


def test_saturation_is_in_percent() -> None:
    algorithm = set_up(EquilibriumPropagation(), network_of("max", activation="hard_sigmoid"), lr=0.1)
    algorithm.train_step(*mini_batch())
    metrics = algorithm.epoch_end(0)
    assert 0 <= float(metrics["activity/state1/saturated"]) <= 100
