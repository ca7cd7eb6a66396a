"""DNI and cDNI: the step of the specification and its limits."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.models.dni_cnn import DniCNN
from altprop.models.mlp import MLP
from altprop.nn.synthetic.gradients import BackwardInterface

SHAPE = (1, 27, 27)
CLASSES = 3
ADAM = partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def set_up(context: bool = False, optimizer: Any = ADAM, model: nn.Module | None = None) -> SyntheticGradients:
    torch.manual_seed(0)
    if model is None:
        model = DniCNN(width=4, units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES).double()
    algorithm = SyntheticGradients(context=context)
    facts = {"steps_per_epoch": 3, "total_epochs": 2, "device": torch.device("cpu"), "seed": 0, "batch_size": 6}
    algorithm.setup(model, optimizer, Schedule(), Context(input_shape=SHAPE, num_classes=CLASSES, **facts))  # type: ignore[arg-type]
    algorithm.epoch_start(0)
    return algorithm


def batch(seed: int, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def literal_step(algorithm: SyntheticGradients, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    """Section 2.4 literally, with two calls of every synthesizer."""
    optimizer.zero_grad()
    labels = nn.functional.one_hot(targets, CLASSES).double() if algorithm.label_context else None
    received: list[Tensor] = []
    predictions: list[Tensor] = []
    below = inputs
    for index, (block, interface) in enumerate(zip(algorithm.blocks, algorithm.interfaces)):
        hidden = block(below)
        synthesizer = interface.synthesizer
        predicted = synthesizer(hidden.detach(), labels).detach()
        hidden.backward(predicted)
        if index:
            received.append(below.grad)  # type: ignore[arg-type]
        below = hidden.detach().clone().requires_grad_()
        predictions.append(synthesizer(hidden.detach(), labels))
    nn.functional.cross_entropy(algorithm.model.head(below), targets).backward()  # type: ignore[operator]
    received.append(below.grad)  # type: ignore[arg-type]
    for predicted, true in zip(predictions, received):
        predicted.backward(2.0 / len(inputs) * (predicted.detach() - true))
    optimizer.step()


@pytest.mark.parametrize("context", [False, True])
def test_step_is_the_published_step(context: bool) -> None:
    algorithm, literal = set_up(context), set_up(context)
    optimizer = ADAM([*literal.model.parameters(), *literal.interfaces.parameters()])
    for step in range(4):
        algorithm.train_step(*batch(step))
        literal_step(literal, optimizer, *batch(step))
    mine = [*algorithm.model.named_parameters(), *algorithm.interfaces.named_parameters()]
    theirs = [*literal.model.named_parameters(), *literal.interfaces.named_parameters()]
    for (name, value), (_, other) in zip(mine, theirs, strict=True):
        assert torch.allclose(value, other, rtol=0, atol=1e-13), name
    counts = [module.num_batches_tracked for module in algorithm.interfaces.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(int(count) == 4 for count in counts), "one call of each synthesizer per step"


def test_published_number_of_parameters() -> None:
    model = DniCNN(units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    algorithm = SyntheticGradients()
    facts = {"steps_per_epoch": 1, "total_epochs": 1, "device": torch.device("cpu"), "seed": 0, "batch_size": 2}
    algorithm.setup(model, ADAM, Schedule(), Context(input_shape=(3, 32, 32), num_classes=10, **facts))  # type: ignore[arg-type]
    trained = sum(parameter.numel() for parameter in algorithm.optimization.parameters)
    assert trained == 4_524_554


class Constant(nn.Module):
    """A synthesizer that returns a constant."""

    def __init__(self, gradient: Tensor) -> None:
        super().__init__()
        self.gradient = nn.Parameter(gradient)

    def forward(self, trigger: Tensor, context: Tensor | None) -> Tensor:
        return self.gradient


def test_perfect_synthesizers_give_backprop() -> None:
    algorithm = set_up(optimizer=partial(torch.optim.SGD, lr=0.0))
    inputs, targets = batch(0)
    plain = copy.deepcopy(algorithm.model)
    hidden = [inputs]
    for block in plain.blocks:  # type: ignore[union-attr]
        hidden.append(block(hidden[-1]))
        hidden[-1].retain_grad()
    nn.functional.cross_entropy(plain.head(hidden[-1]), targets).backward()  # type: ignore[operator]
    algorithm.interfaces = nn.ModuleList(BackwardInterface(Constant(tensor.grad)) for tensor in hidden[1:])  # type: ignore[arg-type]
    algorithm.train_step(inputs, targets)
    for (name, mine), theirs in zip(algorithm.model.named_parameters(), plain.parameters()):
        assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-13), name  # type: ignore[arg-type]
    for interface in algorithm.interfaces:
        assert interface.synthesizer.gradient.grad.abs().max() < 1e-13


def test_zero_synthesizers_train_only_the_classifier() -> None:
    algorithm = set_up(optimizer=partial(torch.optim.SGD, lr=0.0))
    shapes = [(6, 4, 9, 9), (6, 4, 3, 3), (6, 4, 1, 1)]
    algorithm.interfaces = nn.ModuleList(BackwardInterface(Constant(torch.zeros(shape).double())) for shape in shapes)
    algorithm.train_step(*batch(0))
    assert all(not parameter.grad.any() for block in algorithm.blocks for parameter in block.parameters())
    assert all(parameter.grad.any() for parameter in algorithm.model.head.parameters())  # type: ignore[union-attr]


def test_works_on_flat_features_with_labels() -> None:
    model = MLP(hidden=(8, 6), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES).double()
    algorithm = set_up(context=True, model=model)
    before = copy.deepcopy(algorithm.interfaces.state_dict())
    for step in range(3):
        metrics = algorithm.train_step(*batch(step))
    assert torch.isfinite(metrics["loss"])
    moved = [name for name, value in algorithm.interfaces.state_dict().items() if not torch.equal(value, before[name])]
    assert any("from_context.weight" in name for name in moved)


def test_even_kernels_are_a_problem() -> None:
    assert [problem.key for problem in SyntheticGradients.check({"kernel_size": 4}, {})] == ["algorithm.kernel_size"]
    assert not list(SyntheticGradients.check({"kernel_size": 3}, {}))
