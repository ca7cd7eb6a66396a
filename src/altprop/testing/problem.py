"""A tiny problem for the suites, and an algorithm that is set up on it as in the training loop. A run takes under a second."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.models.mlp import MLP
from altprop.nn.weights.base import WeightsRule
from altprop.seeding import derive_seed
from altprop.training.checkpoint import random_state, restore_random_state
from altprop.training.evaluation import evaluate

INPUT_SHAPE = (1, 8, 8)
NUM_CLASSES = 4
BATCH = 16
SAMPLES = 96
STEPS_PER_EPOCH = SAMPLES // BATCH


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
SMALL_MLP = partial(MLP, hidden=(16, 12), units=nn.ReLU)
"""A perceptron for the tiny problem."""


class TinySplit:
    """``[96, 1, 8, 8]`` noisy images, in which a bright quarter encodes the class."""

    num_samples = SAMPLES
    batch_size = BATCH

    def __init__(self, seed: int, shuffle: bool, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(SAMPLES) % NUM_CLASSES
        images = 0.4 * torch.rand(SAMPLES, *INPUT_SHAPE, generator=generator, dtype=torch.float64)
        for index, target in enumerate(self.targets.tolist()):
            row, column = 4 * (target // 2), 4 * (target % 2)
            images[index, 0, row : row + 4, column : column + 4] += 0.6
        self.images, self.targets = images.to(device, dtype), self.targets.to(device)
        self.shuffle = shuffle

    def __len__(self) -> int:
        return STEPS_PER_EPOCH

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(SAMPLES)
        if self.shuffle:
            order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch))
        for first in range(start * BATCH, SAMPLES, BATCH):
            indices = order[first : first + BATCH].to(self.images.device)
            yield self.images[indices], self.targets[indices]


def no_schedule() -> Schedule:
    """A constant learning rate."""
    return Schedule()


@dataclass(frozen=True)
class Case:
    """An algorithm and a model that it can train on the tiny problem.

    Args:
        algorithm: Takes a weights rule and returns the algorithm.
        model: Takes ``input_shape`` and ``num_classes`` and returns the model.
        optimizer: Takes parameters and returns an optimizer.
        schedule: Returns the learning-rate schedule.
        epochs: Length of the training that must reach ``learns_to``.
        learns_to: The test accuracy in percent that the algorithm must reach.
        options: Further arguments of :class:`~altprop.algorithms.context.Context`.
    """

    algorithm: Callable[[WeightsRule], Algorithm]
    model: Callable[..., nn.Module] = SMALL_MLP
    optimizer: Callable[..., torch.optim.Optimizer] = SGD
    schedule: Callable[[], Schedule] = no_schedule
    epochs: int = 10
    learns_to: float = 95.0
    options: Mapping[str, Any] = field(default_factory=dict)


class Training:
    """An algorithm on the tiny problem.

    Args:
        case: The algorithm, and the model that it trains.
        weights: The weights rule; None: dense weights.
        dtype: Type of the images and the parameters.
        context: Arguments of :class:`~altprop.algorithms.context.Context` that differ from those of a plain run.
    """

    def __init__(
        self, case: Case, weights: WeightsRule | None = None, *, dtype: torch.dtype = torch.float32, **context: Any
    ) -> None:
        self.case = case
        settings = {"device": torch.device("cpu"), "seed": 0, "batch_size": BATCH, **case.options, **context}
        self.train_split = TinySplit(1, shuffle=True, dtype=dtype, device=settings["device"])
        self.test_split = TinySplit(2, shuffle=False, dtype=dtype, device=settings["device"])
        torch.manual_seed(derive_seed(0, "init"))
        model = case.model(input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES).to(settings["device"], dtype)
        self.algorithm = case.algorithm(weights if weights is not None else WeightsRule())
        epochs = self.algorithm.total_epochs(case.epochs, model)
        self.context = Context(
            steps_per_epoch=STEPS_PER_EPOCH,
            total_epochs=epochs,
            input_shape=INPUT_SHAPE,
            num_classes=NUM_CLASSES,
            **settings,
        )
        self.algorithm.setup(model, case.optimizer, case.schedule(), self.context)
        torch.manual_seed(derive_seed(0, "noise"))
        self.epoch, self.step_in_epoch = 0, 0
        self.losses: list[float] = []

    def run(self, steps: int | None = None) -> Training:
        """Train for ``steps`` steps, or to the end if it is None."""
        algorithm = self.algorithm
        while self.epoch < self.context.total_epochs and not algorithm.finished:
            algorithm.epoch_start(self.epoch)
            for inputs, targets in self.train_split.batches(self.epoch, self.step_in_epoch):
                if steps == 0:
                    return self
                metrics = algorithm.train_step(inputs, targets)
                if "loss" in metrics:
                    self.losses.append(float(metrics["loss"]))
                self.step_in_epoch += 1
                steps = None if steps is None else steps - 1
            algorithm.epoch_end(self.epoch)
            self.epoch, self.step_in_epoch = self.epoch + 1, 0
        return self

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint, independent of later training."""
        return copy.deepcopy(
            {
                "algorithm": self.algorithm.state_dict(),
                "random": random_state(self.context),
                "position": (self.epoch, self.step_in_epoch),
            }
        )

    def restore(self, state: Mapping[str, Any]) -> Training:
        """Resume from ``state``."""
        self.algorithm.load_state_dict(state["algorithm"])
        restore_random_state(state["random"], self.context)
        self.epoch, self.step_in_epoch = state["position"]
        return self

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test images."""
        return evaluate(self.algorithm, self.test_split)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nested states are bit-identical. A failure names the first difference."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor), where
        assert one.dtype == other.dtype, where
        assert torch.equal(
            one.nan_to_num() if one.is_floating_point() else one, other.nan_to_num() if one.is_floating_point() else other
        ), where
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}/{index}")
    else:
        assert one == other, where
