"""Delayed gradients: the batch and the weights that each update comes from, and exact resume."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.algorithms.delayed.gradients import DelayedGradients, Semantics, repeat_to
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.models.mlp import MLP
from altprop.problems import ConfigError
from tests.algorithms.harness import assert_equal

SHAPE = (1, 3, 3)
CLASSES = 3
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
NO_LEARNING = partial(torch.optim.SGD, lr=0.0)
SEMANTICS = ("stale", "current", "replay")

every_semantics = pytest.mark.parametrize("semantics", SEMANTICS)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small_net(hidden: tuple[int, ...] = (6, 5, 4, 4), units: Any = nn.Tanh) -> MLP:
    torch.manual_seed(0)
    return MLP(hidden=hidden, units=units, input_shape=SHAPE, num_classes=CLASSES).double()


def set_up(algorithm: Algorithm, model: nn.Module | None = None, optimizer: Any = SGD) -> Any:
    facts = {"steps_per_epoch": 4, "total_epochs": 4, "device": torch.device("cpu"), "seed": 0, "batch_size": 5}
    model = model if model is not None else small_net()
    algorithm.setup(model, optimizer, Schedule(), Context(input_shape=SHAPE, num_classes=CLASSES, **facts))  # type: ignore[arg-type]
    algorithm.epoch_start(0)
    return algorithm


def batch(seed: int, count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def exact_gradients(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    model = copy.deepcopy(model)
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}  # type: ignore[misc]


def names_of(algorithm: DelayedGradients, index: int) -> list[str]:
    mine = {id(parameter) for parameter in algorithm.modules[index].parameters()}
    return [name for name, parameter in algorithm.model.named_parameters() if id(parameter) in mine]


@every_semantics
def test_one_module_is_backprop(semantics: Semantics) -> None:
    delayed, plain = set_up(DelayedGradients(semantics=semantics, block_size=4)), set_up(Backprop())
    for step in range(5):
        mine, theirs = delayed.train_step(*batch(step)), plain.train_step(*batch(step))
        assert torch.equal(mine["loss"], theirs["loss"])
    assert_equal(delayed.model.state_dict(), plain.model.state_dict())


@every_semantics
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_without_learning_every_gradient_is_the_exact_one_of_an_earlier_batch(semantics: Semantics, block_size: int) -> None:
    algorithm = set_up(DelayedGradients(semantics=semantics, block_size=block_size), optimizer=NO_LEARNING)
    count = len(algorithm.modules)
    for step in range(7):
        algorithm.train_step(*batch(step))
        for index in range(count):
            delay = count - 1 - index
            if step < delay:
                assert all(parameter.grad is None for parameter in algorithm.modules[index].parameters())
                continue
            exact = exact_gradients(algorithm.model, *batch(step - delay))
            parameters = dict(algorithm.model.named_parameters())
            for name in names_of(algorithm, index):
                assert torch.allclose(parameters[name].grad, exact[name], rtol=0, atol=1e-14), (step, name)


@every_semantics
def test_no_update_before_the_first_gradient_arrives(semantics: Semantics) -> None:
    algorithm = set_up(DelayedGradients(semantics=semantics))
    before = [copy.deepcopy(module.state_dict()) for module in algorithm.modules]
    weights = [[value.clone() for value in module.parameters()] for module in algorithm.modules]
    first_change = [None] * len(before)
    for step in range(6):
        algorithm.train_step(*batch(step))
        for index, module in enumerate(algorithm.modules):
            moved = any(not torch.equal(value, old) for value, old in zip(module.parameters(), weights[index]))
            if moved and first_change[index] is None:
                first_change[index] = step  # type: ignore[call-overload]
    assert first_change == [3, 2, 1, 0]


@pytest.mark.parametrize("block_size", [1, 2])
def test_stale_updates_are_exact_gradients_for_earlier_weights(block_size: int) -> None:
    """theta_k(t+1) = theta_k(t) - lr grad loss(x^(t - d_k); w^(t - d_k)), with all weights of iteration t - d_k."""
    algorithm = set_up(DelayedGradients(block_size=block_size))
    count, models = len(algorithm.modules), []
    for step in range(8):
        models.append(copy.deepcopy(algorithm.model))
        algorithm.train_step(*batch(step))
        parameters = dict(algorithm.model.named_parameters())
        for index in range(count):
            earlier = step - (count - 1 - index)
            if earlier >= 0:
                exact = exact_gradients(models[earlier], *batch(earlier))
                for name in names_of(algorithm, index):
                    assert torch.allclose(parameters[name].grad, exact[name], rtol=0, atol=1e-13), (step, name)


def test_replay_uses_the_present_weights_for_both_passes() -> None:
    model = small_net((6, 5), units=nn.Tanh)
    algorithm = set_up(DelayedGradients(semantics="replay"), model)
    algorithm.train_step(*batch(0))
    present, pending, stored = copy.deepcopy(algorithm.modules[0]), algorithm.pending[0].clone(), algorithm.waiting[0][0].inputs
    algorithm.train_step(*batch(1))
    present.zero_grad()
    present(stored).backward(pending)
    for mine, theirs in zip(algorithm.modules[0].parameters(), present.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


class TwoLinear(FeedForward):
    """A block of two linear layers and another block, for which the delayed gradients have a closed form."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False), nn.Linear(4, 5, bias=False))
        self.second, self.classifier = nn.Linear(5, 5, bias=False), nn.Linear(5, CLASSES, bias=False)
        self.double().chain([self.first, self.second], self.classifier)


@pytest.mark.parametrize(("semantics", "present"), [("stale", False), ("current", True)])
def test_current_semantics_uses_the_present_weights(semantics: Semantics, present: bool) -> None:
    algorithm = set_up(DelayedGradients(semantics=semantics), TwoLinear(), optimizer=partial(torch.optim.SGD, lr=1.0))
    lower, upper = algorithm.model.first[1], algorithm.model.first[2]
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    differences = []
    for step in range(5):
        weights = upper.weight.detach().clone()
        pending = algorithm.pending[0]
        inputs = batch(step)[0].flatten(1)
        history.append((inputs, inputs @ lower.weight.detach().T, weights))
        algorithm.train_step(*batch(step))
        if step >= 1:
            earlier_inputs, earlier_hidden, earlier_weights = history[step - 1]
            used = weights if present else earlier_weights
            assert torch.allclose(upper.weight.grad, pending.T @ earlier_hidden)
            assert torch.allclose(lower.weight.grad, (pending @ used).T @ earlier_inputs)
            differences.append(float((weights - earlier_weights).abs().max()))
    assert max(differences) > 1e-4


def test_semantics_differ_slightly_when_weights_change() -> None:
    nets = {}
    for semantics in SEMANTICS:
        algorithm = set_up(DelayedGradients(semantics=semantics, block_size=2), optimizer=partial(torch.optim.SGD, lr=0.01))
        for step in range(6):
            algorithm.train_step(*batch(step))
        nets[semantics] = torch.cat([value.detach().flatten() for value in algorithm.model.parameters()])
    assert 0 < float((nets["stale"] - nets["current"]).abs().max()) < 1e-3
    assert 0 < float((nets["stale"] - nets["replay"]).abs().max()) < 1e-2


def test_running_statistics_see_every_batch_once() -> None:
    nets = [set_up(DelayedGradients(semantics=semantics), optimizer=NO_LEARNING) for semantics in SEMANTICS]
    plain = set_up(Backprop(), optimizer=NO_LEARNING)
    for step in range(5):
        for algorithm in (*nets, plain):
            algorithm.train_step(*batch(step))
    for algorithm in nets:
        assert_equal(dict(algorithm.model.named_buffers()), dict(plain.model.named_buffers()))


class WithDropout(FeedForward):
    """Three blocks with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        sizes = [9, 8, 8, 8]
        layers = [
            nn.Sequential(
                nn.Flatten(), nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(0.5), nn.Linear(after, after)
            )
            for before, after in pairwise(sizes)
        ]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(8, CLASSES)
        self.double().chain(layers, self.classifier)


@every_semantics
@pytest.mark.parametrize("build", [small_net, WithDropout])
def test_resumes_bit_exactly_with_pending_gradients(semantics: Semantics, build: Any) -> None:
    straight = set_up(DelayedGradients(semantics=semantics), build())
    torch.manual_seed(1)
    for step in range(5):
        straight.train_step(*batch(step))
    state, random = copy.deepcopy(straight.state_dict()), torch.get_rng_state()
    resumed = set_up(DelayedGradients(semantics=semantics), build())
    resumed.load_state_dict(state)
    assert_equal(resumed.state_dict(), state)
    for algorithm in (straight, resumed):
        torch.set_rng_state(random)
        for step in range(5, 10):
            algorithm.train_step(*batch(step))
    assert_equal(straight.state_dict(), resumed.state_dict())


def test_short_batches_are_filled_up_with_their_first_samples() -> None:
    inputs, targets = batch(0, 3)
    filled, labels = repeat_to(inputs, targets, 8)
    assert torch.equal(filled, inputs[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert torch.equal(labels, targets[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert repeat_to(inputs, targets, 3)[0] is inputs
    padded, plain = set_up(DelayedGradients(pad_batches=True)), set_up(DelayedGradients())
    padded.train_step(inputs, targets)
    plain.train_step(*repeat_to(inputs, targets, 5))
    assert_equal(padded.model.state_dict(), plain.model.state_dict())


def test_blocks_without_parameters_are_refused() -> None:
    class Bare(FeedForward):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.classifier = nn.Flatten(), nn.Linear(9, 4), nn.Linear(4, CLASSES)
            self.double().chain([self.first, self.second], self.classifier)

    with pytest.raises(ConfigError, match="block 1 has no parameters"):
        set_up(DelayedGradients(), Bare())
