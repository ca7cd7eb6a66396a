"""Weights, masks and momentum from the checkpoint of another run. Nothing in the file is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.problems import ConfigError, Problem
from altprop.tensor_file import BadCheckpoint, read_tensor_file

_ORIGINAL = re.compile(r"(^|\.)parametrizations\.(\w+)\.original$")
_MASK = re.compile(r"(^|\.)parametrizations\.(\w+)\.0\.mask$")


def read_algorithm_state(path: str, key: str) -> dict[str, Any]:
    """Return ``Algorithm.state_dict()`` from the checkpoint ``path``, on the CPU.

    Raises ``ConfigError`` about configuration key ``key`` if the file is missing or is not a checkpoint.
    """
    if not Path(path).exists():
        raise ConfigError([Problem(key, f"no file {path}", "the checkpoint of a run that has finished")])
    try:
        state = read_tensor_file(Path(path))
    except BadCheckpoint as error:
        description = f"{path} is not a readable checkpoint ({str(error).removeprefix(f'{path}: ')})"
        raise ConfigError([Problem(key, description, "a checkpoint written by altprop")]) from error
    algorithm = state.get("algorithm") if isinstance(state, dict) else None
    if not isinstance(algorithm, dict) or not isinstance(algorithm.get("model"), dict):
        raise ConfigError([Problem(key, f"{path} is not a checkpoint of a run", "a checkpoint written by altprop")])
    return algorithm


def plain_name(name: str) -> str:
    """Return the name of a parameter without parametrizations: ``fc.parametrizations.weight.original`` is ``fc.weight``."""
    return _ORIGINAL.sub(r"\1\2", name)


def load_model_weights(model: nn.Module, state: Mapping[str, Any], key: str) -> None:
    """Copy every parameter and buffer except masks from the algorithm state of a run of the same model, masked or not.

    The dense storage is copied whole, inactive entries included. Raises ``ConfigError`` about configuration key ``key`` if a
    tensor is missing or has another shape.
    """
    saved = {plain_name(name): value for name, value in state["model"].items()}
    own = {name: value for name, value in model.state_dict().items() if not _MASK.search(name)}
    for name, value in own.items():
        other = saved.get(plain_name(name))
        if other is None or other.shape != value.shape:
            actual = "is missing" if other is None else f"has shape {list(other.shape)}"
            description = f"{plain_name(name)} {actual} in the checkpoint"
            raise ConfigError([Problem(key, description, f"the same model, shape {list(value.shape)}")])
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[plain_name(name)])


def load_masks(names: Sequence[str], shapes: Sequence[Sequence[int]], state: Mapping[str, Any], key: str) -> Tensor:
    """Return the masks of the weights ``names`` in an algorithm state as one flat buffer ``[units]``.

    Raises ``ConfigError`` about configuration key ``key`` if a mask is missing or has another shape.
    """
    saved = {
        _MASK.sub(r"\1\2", name).removesuffix(".weight"): mask for name, mask in state["model"].items() if _MASK.search(name)
    }
    masks = []
    for name, shape in zip(names, shapes):
        mask = saved.get(name)
        if mask is None or tuple(mask.shape) != tuple(shape):
            actual = "has no mask" if mask is None else f"has a mask of shape {list(mask.shape)}"
            allowed = f"a sparse run of the same model and granularity, shape {list(shape)}"
            raise ConfigError([Problem(key, f"{name} {actual} in the checkpoint", allowed)])
        masks.append(mask.reshape(-1))
    return torch.cat(masks)


def load_momentum(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any], key: str) -> None:
    """Copy the per-parameter optimizer state (momentum buffers) of a run of the same model, matched by parameter name.

    Learning rate, weight decay and so on stay as configured. Raises ``ConfigError`` about configuration key ``key`` unless both
    runs have a single optimizer over all parameters of the model.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    order = [plain_name(name) for name in state["model"] if plain_name(name) in parameters]
    saved = state["optimizers"]
    single = len(optimizers) == 1 and len(saved) == 1
    if not single or sum(len(group["params"]) for group in saved[0]["optimizer"]["param_groups"]) != len(parameters):
        description = "several optimizers, or one over a part of the model"
        raise ConfigError([Problem(key, description, "runs with one optimizer over all parameters", "algorithm=backprop")])
    for place, values in saved[0]["optimizer"]["state"].items():
        parameter = parameters[order[place]]
        optimizers[0].state[parameter] = {
            name: value.to(parameter.device, copy=True) if isinstance(value, Tensor) and value.dim() else value
            for name, value in values.items()
        }
