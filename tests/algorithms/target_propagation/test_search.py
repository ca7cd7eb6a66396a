"""Full FTPROP: the beam search compared with brute force, and small problems in which all units become separable."""

from __future__ import annotations

import copy
import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation.beam import hinge_losses, propose_targets
from altprop.algorithms.target_propagation.search import TargetSearch, linear_layers
from altprop.models.mlp import MLP
from altprop.nn.units.hard import BinaryStep, SignStep
from altprop.problems import ConfigError
from tests.algorithms.harness import assert_equal

ADAM = partial(torch.optim.Adam, lr=0.03)
SEEDS = st.integers(0, 2**32 - 1)


def random_layer(seed: int, samples: int, inputs: int, units: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randint(2, (samples, inputs), generator=generator).double() * 2 - 1
    weight = torch.randn(units, inputs, generator=generator, dtype=torch.float64)
    bias = torch.randn(units, generator=generator, dtype=torch.float64)
    targets = torch.randint(2, (samples, units), generator=generator).double() * 2 - 1
    return activations, weight, bias, targets


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, inputs=st.integers(1, 4), units=st.integers(1, 3))
def test_a_beam_as_wide_as_the_space_finds_the_best_targets(seed: int, inputs: int, units: int) -> None:
    activations, weight, bias, targets = random_layer(seed, 5, inputs, units)
    best = propose_targets(activations, weight, bias, targets, beam=inputs * 2**inputs, candidates=inputs, flips=inputs)[0]
    losses = hinge_losses(best @ weight.T + bias, targets)
    everything = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=inputs)), dtype=torch.float64)
    least = torch.stack([hinge_losses(state @ weight.T + bias, targets) for state in everything]).amin(dim=0)
    assert (losses <= least + 1e-3 * inputs + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, beam=st.integers(1, 6), candidates=st.integers(1, 9), flips=st.integers(1, 3))
def test_proposals_are_signs_with_few_flips_in_order(seed: int, beam: int, candidates: int, flips: int) -> None:
    activations, weight, bias, targets = random_layer(seed, 6, 7, 3)
    proposals = propose_targets(activations, weight, bias, targets, beam=beam, candidates=candidates, flips=flips)
    assert proposals.shape[0] <= beam
    assert proposals.shape[1:] == activations.shape
    assert torch.equal(proposals.abs(), torch.ones_like(proposals))
    differing = (proposals != activations).sum(dim=2)
    assert (differing <= flips).all()
    losses = hinge_losses(proposals @ weight.T + bias, targets)
    present = hinge_losses(activations @ weight.T + bias, targets)
    assert (losses[0] <= present).all()
    assert (losses[0] <= losses + 1e-3 * flips + 1e-9).all()


def parity(bits: int) -> tuple[Tensor, Tensor]:
    """Return all sign patterns ``[2^bits, 1, 1, bits]`` and whether the number of -1 in each is even."""
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)))
    return patterns[:, None, None], (patterns.prod(dim=1) > 0).long()


def set_up(hidden: list[int], bits: int, seed: int, steps_per_epoch: int = 1, **options: Any) -> TargetSearch:
    torch.manual_seed(seed)
    model = MLP(hidden=hidden, batch_norm=False, units=SignStep, input_shape=(1, 1, bits), num_classes=2)
    algorithm = TargetSearch(**options)
    context = Context(steps_per_epoch, 20, torch.device("cpu"), seed, (1, 1, bits), 2, 2**bits)
    algorithm.setup(model, ADAM, Schedule(), context)
    return algorithm


def is_separable(inputs: Tensor, targets: Tensor) -> bool:
    """Whether ``t (w x + b) >= 1`` for all samples is possible, by a linear program that is exact up to its tolerance."""
    points = np.concatenate([inputs.numpy(), np.ones((len(inputs), 1))], axis=1) * targets.numpy()[:, None]
    result = linprog(np.zeros(points.shape[1]), A_ub=-points, b_ub=-np.ones(len(points)), bounds=(None, None))
    return bool(result.status == 0)


def layer_problems(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return inputs and targets of each layer: the network's activations, and the labels for the last layer."""
    problems, features = [], inputs.flatten(1)
    layers = list(linear_layers(model))
    for layer in layers[:-1]:
        outputs = torch.where(layer(features) > 0, 1.0, -1.0)
        problems.append((features, outputs))
        features = outputs
    return [*problems, (features, 2 * nn.functional.one_hot(labels, 2).float() - 1)]


@pytest.mark.parametrize(("hidden", "bits", "seed"), [([8], 4, 2), ([8], 4, 3), ([12, 12], 5, 1)])
@torch.no_grad()
def test_every_units_problem_becomes_separable(hidden: list[int], bits: int, seed: int) -> None:
    inputs, labels = parity(bits)
    algorithm = set_up(hidden, bits, seed)
    features, targets = layer_problems(algorithm.model, inputs, labels)[-1]
    assert not all(is_separable(features, targets[:, unit]) for unit in range(2))
    for epoch in range(20):
        algorithm.epoch_start(epoch)
        with torch.enable_grad():
            metrics = algorithm.train_step(inputs, labels)
        algorithm.epoch_end(epoch)
        if algorithm.finished:
            break
    assert algorithm.finished
    assert float(metrics["search/unreached"]) == 0
    assert float(metrics["accuracy"]) == 100
    with algorithm.inference():
        assert torch.equal(algorithm.predict(inputs).argmax(dim=1), labels)
    for features, targets in layer_problems(algorithm.model, inputs, labels):
        for unit in range(targets.shape[1]):
            assert is_separable(features, targets[:, unit])


def test_a_search_never_ends_worse_than_it_started() -> None:
    inputs, labels = parity(5)
    algorithm = set_up([6], 5, 1, rounds=2, fit_steps=40)
    unreached = [float(algorithm.train_step(inputs, labels)["search/unreached"]) for _ in range(6)]
    assert unreached == sorted(unreached, reverse=True)
    assert unreached[-1] > 0
    assert not algorithm.finished
    algorithm.model.eval()
    scores = algorithm.predict(inputs)
    wrong = ((scores > 0) != nn.functional.one_hot(labels, 2).bool()).sum()
    assert float(wrong) == unreached[-1]


def test_resumes_bit_exactly() -> None:
    inputs, labels = parity(5)

    def state_after(algorithm: TargetSearch, steps: int) -> dict[str, Any]:
        for _ in range(steps):
            algorithm.train_step(inputs, labels)
        return copy.deepcopy(algorithm.state_dict())

    options: dict[str, Any] = {"rounds": 2, "fit_steps": 40}
    straight = state_after(set_up([6], 5, 1, **options), 5)
    first = set_up([6], 5, 1, **options)
    state = state_after(first, 2)
    resumed = set_up([6], 5, 1, **options)
    resumed.load_state_dict(state)
    resumed.context.generators.update(first.context.generators)
    assert_equal(state_after(resumed, 3), straight)


def test_unsupported_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.batch_size: 32, which makes 3 mini-batches"):
        set_up([4], 5, 0, steps_per_epoch=3)
    model = MLP(hidden=[4], batch_norm=True, units=SignStep, input_shape=(1, 1, 5), num_classes=2)
    with pytest.raises(ConfigError, match=r"linear layers with sign units .*model\.batch_norm=false"):
        TargetSearch().setup(model, ADAM, Schedule(), Context(1, 1, torch.device("cpu"), 0, (1, 1, 5), 2, 32))
    node = {"units": {"_target_": f"{BinaryStep.__module__}.BinaryStep"}, "batch_norm": True}
    schedule = {"scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR"}, "interval": "step"}
    problems = TargetSearch.check({"rounds": 0, "beam": 2}, {"model": node, "schedule": schedule})
    assert [problem.key for problem in problems] == ["algorithm.rounds", "model.batch_norm", "model.units", "schedule.interval"]
