"""Algorithms set up on small networks as in a run."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from altprop.algorithms.context import Context
from altprop.algorithms.equilibrium_propagation.base import EnergyAlgorithm
from altprop.algorithms.schedule import Schedule
from altprop.models.energy import EnergyModel
from tests.algorithms.equilibrium_propagation.networks import CLASSES, IMAGE


def set_up(algorithm: EnergyAlgorithm, model: EnergyModel, schedule: Schedule | None = None, **optimizer: Any) -> EnergyAlgorithm:
    """Set up ``algorithm`` on ``model`` with plain SGD of rate 1 unless ``optimizer`` says otherwise."""
    context = Context(
        steps_per_epoch=5,
        total_epochs=120,
        device=torch.device("cpu"),
        seed=0,
        input_shape=IMAGE,
        num_classes=CLASSES,
        batch_size=4,
    )
    settings = {"lr": 1.0, **optimizer}
    algorithm.setup(model, partial(torch.optim.SGD, **settings), schedule or Schedule(), context)
    return algorithm


def parameters_of(model: EnergyModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def gradient_of(algorithm: EnergyAlgorithm, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the gradients: what one step of plain SGD of rate 1 subtracts from the parameters."""
    before = parameters_of(algorithm.model)
    algorithm.train_step(inputs, targets)
    return {name: before[name] - value for name, value in parameters_of(algorithm.model).items()}


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the relative distance of ``first`` from ``second``, two sets of gradients."""
    difference = torch.stack([(first[name] - value).square().sum() for name, value in second.items()]).sum()
    size = torch.stack([value.square().sum() for value in second.values()]).sum()
    return float((difference / size).sqrt())
