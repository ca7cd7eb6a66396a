"""Repeating a forward pass of a module without side effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from altprop.names import builds


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep batch norms in training mode from updating their running statistics. They still normalize with the batch.

    Spectral norms keep their vectors, too.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    tracking = [layer.track_running_stats for layer in layers]
    spectral = [part for part in module.modules() if isinstance(part, _SpectralNorm) and part.training]
    for layer in layers:
        layer.track_running_stats = False
    for part in spectral:
        part.training = False
    try:
        yield
    finally:
        for part in spectral:
            part.training = True
        for layer, tracks in zip(layers, tracking, strict=True):
            layer.track_running_stats = tracks


def is_random(module: nn.Module) -> bool:
    """Whether ``module`` draws random numbers in training, that is, has dropout."""
    return any(isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0 for layer in module.modules())


def dropout_options(model: Mapping[str, Any]) -> list[str]:
    """The settings in a model's configuration that give it dropout, as ``name=value``: dropout above 0, or units of dropout."""
    numbers = [f"{name}={value}" for name, value in model.items() if "dropout" in name and _is_positive(value)]
    nodes = [(name, node) for name, node in model.items() if builds(node, nn.modules.dropout._DropoutNd)]
    return numbers + [f"{name}={node['_target_'].rpartition('.')[2]}" for name, node in nodes if _is_positive(node.get("p", 0.5))]


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that dropout uses on ``device``."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def random_state_of(state: Tensor | None, device: torch.device) -> Iterator[None]:
    """Use the random state ``state`` inside and restore the present one afterwards. None changes nothing."""
    if state is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield
