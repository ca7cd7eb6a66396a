"""The plain-PyTorch side of ``block_algorithms_step.py`` makes the same updates as altprop's algorithms."""

from __future__ import annotations

import pytest
import straightforward_greedy as plain
import torch
from block_algorithms_step import ALGORITHMS, every_stage, make, twin
from subjects import noise, stepper
from torch import nn

SHAPE = (3, 16, 16)


def layers(module: nn.Module) -> list[nn.Module]:
    """Return the convolutions and batch norms of the four blocks."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)][:8]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_same_weights_after_a_few_steps(name: str) -> None:
    torch.set_num_threads(1)
    algorithm = make(name, 4, 4, SHAPE)
    algorithm.model.double()
    for module in (getattr(algorithm, "local_heads", None), getattr(algorithm, "interfaces", None)):
        if module is not None:
            module.double()
    inputs, targets = noise(4, SHAPE)
    batch = (inputs.double(), targets)
    step = twin(algorithm)
    if name == "sequential_greedy":
        assert isinstance(step, plain.Greedy)
        step.stage = 0
    before = {key: value.clone() for key, value in algorithm.model.state_dict().items()}
    ours, _ = stepper(algorithm, batch)
    for _ in range(7):
        ours()
        every_stage(step, batch)
    model = step.model if isinstance(step, plain.EndToEnd) else nn.ModuleList(step.blocks)
    for left, right in zip(layers(algorithm.model), layers(model), strict=True):
        for key, value in left.state_dict().items():
            torch.testing.assert_close(value, right.state_dict()[key], rtol=1e-9, atol=1e-12)
    moved = [key for key, value in algorithm.model.state_dict().items() if not torch.equal(value, before[key])]
    assert {f"features.{index}" for index in range(4)} <= {".".join(key.split(".")[:2]) for key in moved}
