"""Structured RigL: the update of one layer, and networks that keep a constant fan-in while they are trained."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.models.convnet import ConvNet
from altprop.nn.weights.base import WeightsContext
from altprop.nn.weights.sparse.structured import StructuredRigL, constant_fan_in_mask, structured_update
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training


def fan_ins(mask: Tensor) -> set[int]:
    return {int(count) for count in mask.sum(dim=1)} - {0}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_an_update_keeps_the_fan_in_constant_and_the_budget(neurons: int, inputs: int, data: st.DataObject) -> None:
    fan_in = data.draw(st.integers(1, inputs))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    alive = constant_fan_in_mask(neurons, inputs, fan_in, generator).bool()
    budget = neurons * fan_in
    before = alive
    for _ in range(3):
        magnitudes = torch.rand(neurons, inputs, generator=generator, dtype=torch.float64)
        gradients = torch.rand(neurons, inputs, generator=generator, dtype=torch.float64)
        prune = data.draw(st.integers(0, int(alive.sum()) - 1))
        gamma = data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
        alive = structured_update(before, magnitudes, gradients, prune=prune, budget=budget, gamma_sal=gamma)
        (new_fan_in,) = fan_ins(alive)
        left = int((alive.sum(dim=1) > 0).sum())
        assert new_fan_in == min(inputs, budget // left)
        assert not bool((alive.any(dim=1) & ~before.any(dim=1)).any())  # an ablated neuron stays ablated
        if gamma == 0.0:
            assert left == int((before.sum(dim=1) > 0).sum())
        before = alive


def test_an_update_by_hand() -> None:
    """Two neurons of six inputs with a fan-in of 3; the two smallest weights are pruned."""
    alive = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()
    magnitudes = torch.tensor([[9.0, 8.0, 0.1, 0, 0, 0], [7.0, 0.2, 6.0, 0, 0, 0]], dtype=torch.float64)
    gradients = torch.tensor([[0, 0, 99.0, 1.0, 5.0, 3.0], [0, 99.0, 0, 2.0, 1.0, 0.5]], dtype=torch.float64)
    after = structured_update(alive, magnitudes, gradients, prune=2, budget=6, gamma_sal=0.3)
    assert after.int().tolist() == [[1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0]]


def test_a_neuron_without_salient_weights_is_ablated_and_its_weights_go_to_the_others() -> None:
    """Both weights of the second neuron are among the two smallest, and the largest gradients belong to the first."""
    alive = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]).bool()
    magnitudes = torch.tensor([[5.0, 6.0, 0, 0, 0], [0.1, 0.2, 0, 0, 0]], dtype=torch.float64)
    gradients = torch.tensor([[0, 0, 4.0, 5.0, 6.0], [0, 0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    options: dict[str, Any] = {"prune": 2, "budget": 4}
    after = structured_update(alive, magnitudes, gradients, gamma_sal=0.3, **options)
    assert after.int().tolist() == [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]
    kept = structured_update(alive, magnitudes, gradients, gamma_sal=0.0, **options)
    assert kept.int().tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_weights_that_were_just_pruned_come_back_only_if_there_is_no_other_room() -> None:
    alive = torch.tensor([[1, 1, 1], [1, 1, 1]]).bool()
    magnitudes = torch.tensor([[3.0, 2.0, 0.1], [3.0, 2.0, 1.0]], dtype=torch.float64)
    after = structured_update(alive, magnitudes, torch.rand(2, 3, dtype=torch.float64), prune=1, budget=6, gamma_sal=0.3)
    assert bool(after.all())


def trained(**options: Any) -> tuple[Training, StructuredRigL]:
    model = partial(ConvNet, channels=(4, "pool", 8, "pool", 8), units=nn.ReLU)
    rule = StructuredRigL(sparsity=0.6, period={0: 2}, dense=(), **options)
    return Training(Case(lambda weights: Backprop(weights=weights), model), rule, dtype=torch.float64), rule


@pytest.mark.parametrize("distribution", ["equal", "erk"])
def test_networks_keep_a_constant_fan_in_after_every_step(distribution: Any) -> None:
    run, rule = trained(gamma_sal=0.6, distribution=distribution)
    start = [part.clone() for part in rule._rows(rule.weights.alive)]
    assert all(len(fan_ins(part)) == 1 and bool((part.sum(dim=1) > 0).all()) for part in start)
    for _ in range(7):
        run.run(1)
        for part, budget in zip(rule._rows(rule.weights.alive), rule.budgets, strict=True):
            assert len(fan_ins(part)) == 1
            assert int(part.sum()) <= budget
    assert any(not torch.equal(part, old) for part, old in zip(rule._rows(rule.weights.alive), start, strict=True))
    metrics = rule.epoch_end(0)
    for name, part in zip(rule.weights.names, rule._rows(rule.weights.alive), strict=True):
        assert {int(metrics[f"fan_in/{name}"])} == fan_ins(part)
        assert int(metrics[f"neurons/{name}"]) == int((part.sum(dim=1) > 0).sum())


@pytest.mark.parametrize(
    "options", [{"fraction": 0.0}, {"fraction": 1.0}, {"gamma_sal": -0.1}, {"gamma_sal": 1.5}, {"granularity": 2}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.weights\.{next(iter(options))}"):
        StructuredRigL(sparsity=0.5, period={0: 2}, **options)


def test_transposed_convolutions_are_refused() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 3, 3), nn.Conv2d(3, 4, 3))
    context = WeightsContext(1, 1, torch.device("cpu"), torch.Generator())
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.dense=\[0\]"):
        StructuredRigL(sparsity=0.5, period={0: 2}, dense=()).attach(model, context)
