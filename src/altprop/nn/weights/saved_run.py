"""What a weights rule reads from the checkpoint of another run: weights, masks, momentum. Nothing in the file is executed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.problems import ConfigError, Problem

_ORIGINAL = ".parametrizations.weight.original"
_MASK = ".parametrizations.weight.0.mask"


def read_algorithm_state(path: str, key: str) -> dict[str, Any]:
    """``Algorithm.state_dict()`` in the checkpoint ``path``, on the CPU.

    Raises ``ConfigError`` about configuration key ``key`` where the file is missing or no checkpoint.
    """
    if not Path(path).is_file():
        raise ConfigError([Problem(key, f"no file {path}", "the checkpoint of a run that has finished")])
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return dict(state["algorithm"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ConfigError([Problem(key, f"{path} is no readable checkpoint", "a checkpoint written by altprop")]) from error


def plain_name(name: str) -> str:
    """Name of a parameter as it would be without parametrizations: ``fc.parametrizations.weight.original`` is ``fc.weight``."""
    return name.replace(_ORIGINAL, ".weight")


def load_model_weights(model: nn.Module, state: Mapping[str, Any], key: str) -> None:
    """Copy every parameter and buffer but the masks from the algorithm state of a run of the same model, masked or not.

    Dense storage is copied whole, inactive entries included. Raises ``ConfigError`` where a tensor is missing or does not fit.
    """
    saved = {plain_name(name): value for name, value in state["model"].items()}
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(_MASK)}
    for name, value in own.items():
        other = saved.get(plain_name(name))
        if other is None or other.shape != value.shape:
            given = "has none" if other is None else f"has shape {list(other.shape)}"
            raise ConfigError([Problem(key, f"{plain_name(name)} {given} there", f"the same model, shape {list(value.shape)}")])
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[plain_name(name)])


def load_masks(names: Sequence[str], shapes: Sequence[Sequence[int]], state: Mapping[str, Any], key: str) -> Tensor:
    """The masks of the layers ``names`` in an algorithm state as one flat buffer ``[units]``.

    Raises ``ConfigError`` where a mask is missing or has another shape.
    """
    parts = []
    for name, shape in zip(names, shapes):
        mask = state["model"].get(name + _MASK)
        if mask is None or tuple(mask.shape) != tuple(shape):
            given = "has no mask" if mask is None else f"has a mask of shape {list(mask.shape)}"
            allowed = f"a sparse run of the same model and granularity, shape {list(shape)}"
            raise ConfigError([Problem(key, f"{name} {given} there", allowed)])
        parts.append(mask.reshape(-1))
    return torch.cat(parts)


def load_momentum(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any], key: str) -> None:
    """Give ``optimizers``' one member the per-parameter state (momentum buffers) of a run of the same model, by name.

    Learning rates, weight decay and the like stay as configured. Raises ``ConfigError`` unless both runs have one optimizer over
    all parameters of the model.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    order = [plain_name(name) for name in state["model"] if plain_name(name) in parameters]
    saved = state["optimizers"]
    one = len(optimizers) == 1 and len(saved) == 1
    if not one or sum(len(group["params"]) for group in saved[0]["optimizer"]["param_groups"]) != len(parameters):
        given = "several optimizers, or one over a part of the model"
        raise ConfigError([Problem(key, given, "runs with one optimizer over all parameters", "algorithm=backprop")])
    for place, values in saved[0]["optimizer"]["state"].items():
        parameter = parameters[order[place]]
        optimizers[0].state[parameter] = {
            name: value.to(parameter.device, copy=True) if isinstance(value, Tensor) and value.dim() else value
            for name, value in values.items()
        }
