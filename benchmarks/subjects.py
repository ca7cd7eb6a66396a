"""Subjects of benchmarks: algorithms set up as in the training loop, trained on noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from measuring import CPU
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation.search import TargetSearch
from altprop.config.build import build_parts
from altprop.config.compose import compose
from altprop.config.plain import to_plain
from altprop.models.energy import EnergyModel
from altprop.training.cost import FlopCounter

Shape = tuple[int, int, int]
A = TypeVar("A", bound=Algorithm)
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
CLASSES = 10
STEPS_PER_EPOCH = 1_000_000
"""Large enough that no epoch ends during a measurement."""

SGD = partial(torch.optim.SGD, lr=0.001, momentum=0.9)


def noise(batch: int, shape: Shape, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Return a mini-batch ``[batch, *shape]`` and its classes ``[batch]``."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(batch, *shape, generator=generator)
    return inputs.to(device), torch.randint(CLASSES, (batch,), generator=generator).to(device)


def set_up(
    algorithm: A,
    model: Callable[[], nn.Module],
    shape: Shape,
    batch: int,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
    device: torch.device = CPU,
    **context: Any,
) -> A:
    """Set up ``algorithm`` with a model from ``model``, always from the same seed; ``context`` are further facts of the run."""
    torch.manual_seed(0)
    net = model().to(device)
    algorithm.model = net
    facts: dict[str, Any] = {"steps_per_epoch": STEPS_PER_EPOCH, "total_epochs": 200, **context}
    facts |= {"device": device, "seed": 0, "input_shape": shape, "num_classes": CLASSES, "batch_size": batch}
    algorithm.setup(net, optimizer, Schedule(), Context(**facts))
    algorithm.epoch_start(0)
    return algorithm


def recipe(overrides: Sequence[str], shape: Shape, batch: int, **context: Any) -> Callable[[], Algorithm]:
    """Return a function that builds and sets up what ``python train.py <overrides>`` would train on images of ``shape``."""
    config, _ = to_plain(compose(overrides))

    def make() -> Algorithm:
        parts = build_parts(config)
        model = partial(parts.model_factory, input_shape=shape, num_classes=CLASSES)
        return set_up(parts.algorithm, model, shape, batch, parts.optimizer_factory, **context)

    return make


def stepper(algorithm: Algorithm, batch: tuple[Tensor, Tensor]) -> tuple[Callable[[], object], int]:
    """Return a function that trains ``algorithm`` on ``batch``, and the number of training steps in each call of it.

    For sequential greedy learning, a call makes one step in every stage. For a target search it makes one step, always from the
    same initial state.
    """
    if isinstance(algorithm, SequentialGreedy):

        def stages() -> None:
            for stage in range(algorithm.num_blocks):
                algorithm.epoch_start(stage * algorithm.stage_epochs)
                algorithm.train_step(*batch)

        return stages, algorithm.num_blocks
    if isinstance(algorithm, TargetSearch):
        initial = copy.deepcopy(algorithm.state_dict())

        def search() -> None:
            algorithm.load_state_dict(copy.deepcopy(initial))
            algorithm.train_step(*batch)

        return search, 1
    return partial(algorithm.train_step, *batch), 1


class FeedForwardTwin(nn.Module):
    """The weight layers, poolings and activation of an energy-based network as a feed-forward network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, EnergyModel)
        self.edges, self.layers, self.activation = model.edges, model.layers, model.activation

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for position, (edge, layer) in enumerate(zip(self.edges, self.layers, strict=True)):
            features = layer(features if edge.is_convolution else features.flatten(1))
            if edge.pool == "max":
                features = nn.functional.max_pool2d(features, 2)
            if position + 1 < len(self.layers):
                features = self.activation(features)
        return features


def flops(step: Callable[[], object]) -> int:
    """Return the floating-point operations of ``step``, counted as in runs."""
    with FlopCounter() as counter:
        step()
    return counter.flops
