"""Small energy-based networks of every kind in float64, and states and mini-batches for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.network import LossName, States
from altprop.models.energy import EnergyConvNet, EnergyMLP, EnergyModel
from altprop.nn.energy.activations import ActivationName

IMAGE = (2, 11, 10)
CLASSES = 3

Kind = tuple[str, LossName, bool]
"""Name of a network, loss, and whether it has a softmax readout."""

KINDS: list[Kind] = [
    (name, loss, readout)
    for name in ("mlp", "max", "average", "none", "strided", "mixed")
    for loss, readout in (("mse", False), ("cross_entropy", False), ("cross_entropy", True))
]


def network_of(
    name: str, *, readout: bool = False, vector_field: bool = False, activation: ActivationName = "shifted_sigmoid", seed: int = 0
) -> EnergyModel:
    """Return the network called ``name`` in float64."""
    torch.manual_seed(seed)
    common = {
        "activation": activation,
        "softmax_readout": readout,
        "vector_field": vector_field,
        "input_shape": IMAGE,
        "num_classes": CLASSES,
    }
    layouts: dict[str, Callable[[], EnergyModel]] = {
        "mlp": lambda: EnergyMLP(hidden=(7, 6), **common),
        "max": lambda: EnergyConvNet(
            channels=(4, 5), kernels=(3, 3), strides=(1, 1), paddings=(1, 0), pools=("max", "max"), **common
        ),
        "average": lambda: EnergyConvNet(
            channels=(4, 5), kernels=(3, 2), strides=(1, 1), paddings=(1, 0), pools=("average", "average"), hidden=(6,), **common
        ),
        "none": lambda: EnergyConvNet(
            channels=(4, 5), kernels=(3, 3), strides=(1, 1), paddings=(0, 1), pools=("none", "none"), **common
        ),
        "strided": lambda: EnergyConvNet(
            channels=(4, 5), kernels=(3, 3), strides=(2, 2), paddings=(1, 1), pools=("none", "max"), **common
        ),
        "mixed": lambda: EnergyConvNet(
            channels=(4, 5, 6),
            kernels=(3, 3, 2),
            strides=(1, 2, 1),
            paddings=(2, 1, 0),
            pools=("max", "none", "average"),
            hidden=(6,),
            **common,
        ),
    }
    return layouts[name]().double()


def random_states(model: EnergyModel, batch: int, seed: int = 1) -> States:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, *shape, generator=generator, dtype=torch.float64) for shape in model.state_shapes]


def mini_batch(batch: int = 4, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Return inputs ``[batch, *IMAGE]`` and integer targets ``[batch]``."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(batch, *IMAGE, generator=generator, dtype=torch.float64),
        torch.randint(CLASSES, (batch,), generator=generator),
    )
