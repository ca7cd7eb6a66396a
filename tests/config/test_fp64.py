"""``trainer.precision=fp64``: parameters and everything that is computed from them are in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from altprop.commands.export import export_sparse
from altprop.config.build import build
from altprop.config.compose import compose
from altprop.training.predictor import Predictor
from altprop.training.run import train
from altprop.training.trained import load_trained

SMALL = ["dataset.limit_train=100", "dataset.limit_test=50", "trainer.device=cpu", "trainer.threads=1", "~logger"]
SMALL += ["trainer.precision=fp64", "trainer.duration=1ep"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm/weights=rigl"],
        ["algorithm=decoupled_greedy"],
        ["algorithm=synthetic_gradients"],
        ["algorithm=equilibrium_propagation", "model=eqprop_mlp", "algorithm.free_steps=3", "algorithm.nudge_steps=2"],
        ["algorithm=target_propagation", "model=mlp", "model/units=sign_step"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_a_run_in_float64(overrides: list[str], tmp_path: Path) -> None:
    figures = f"trainer.figures={str('rigl' in overrides[0]).lower()}"
    parts = build(compose([*SMALL, *overrides, figures, f"paths.outputs={tmp_path}"]))[0]
    train(parts)
    trained = load_trained(parts, "last")
    tensors = trained.state["algorithm"]["model"].values()
    assert {value.dtype for value in tensors if value.is_floating_point()} == {torch.float64}
    inputs, _ = next(iter(trained.run.data.test.batches()))
    assert inputs.dtype == torch.float64
    assert Predictor(parts, trained)(inputs.float()).dtype == torch.float64
    if "rigl" in overrides[0]:
        export_sparse(parts)
