"""``model.weights_from`` for foreign models: the weights of every weights rule are those that the other network computed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from altprop.nn.fused_attention import without_fused_attention
from altprop.nn.weights.base import Dense
from altprop.nn.weights.saved_run import load_weights, own_tensors
from altprop.problems import ConfigError
from altprop.testing import WEIGHTS_RULES, Training
from altprop.testing.problem import STEPS_PER_EPOCH
from altprop.training.assembly import start_from
from tests.zoo.models import ZOO
from tests.zoo.test_weights import REFUSED, build, case

OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"_target_": "altprop.weights.Dense"},
    "rigl": {"_target_": "altprop.weights.DynamicSparse"},
    "n_of_m": {"_target_": "altprop.weights.NOfM", "n": 2, "m": 4},
    "tied": {"_target_": "altprop.weights.TiedWeights"},
    "binary": {"_target_": "altprop.weights.Binary", "scale": "channel"},
    "iterative_binary": {"_target_": "altprop.weights.IterativeBinary", "epochs_per_layer": 1},
}


@pytest.mark.parametrize("rule", OPTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_a_dense_run_computes_the_same(name: str, rule: str, tmp_path: Path) -> None:
    if (rule, name) in REFUSED:
        pytest.skip("the rule refuses the model")
    training = Training(case(name), WEIGHTS_RULES[rule]())
    training.run(STEPS_PER_EPOCH + 2)
    config = yaml.safe_dump({"algorithm": {"weights": OPTIONS[rule]}})
    torch.save({"format": 1, "config": config, "algorithm": training.algorithm.state_dict()}, tmp_path / "last.pt")
    torch.manual_seed(7)
    model = build(name).eval()
    start_from(str(tmp_path / "last.pt"), model, Dense())
    inputs, _ = next(training.test_split.batches())
    with training.algorithm.inference(), without_fused_attention():
        torch.testing.assert_close(model(inputs), training.algorithm.model(inputs), rtol=1e-6, atol=1e-7)


def test_a_buffer_called_mask_in_a_module_of_the_model_belongs_to_the_model() -> None:
    masked = nn.Module()
    masked.register_buffer("mask", torch.ones(2))
    assert set(own_tensors(nn.ModuleDict({"blocks": nn.Sequential(masked)}))) == {"blocks.0.mask"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_of_another_kind_of_numbers_are_refused(dtype: torch.dtype) -> None:
    own = {"layer.weight": torch.zeros(2)}
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ConfigError, match=f"^model.weights_from: layer.weight is {name} instead of float32; the same model"):
        load_weights(own, {"layer.weight": torch.ones(2, dtype=dtype)}, "model.weights_from")
    load_weights(own, {"layer.weight": torch.ones(2, dtype=torch.float64)}, "model.weights_from")
    assert own["layer.weight"].tolist() == [1.0, 1.0]
