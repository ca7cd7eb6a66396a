"""Weights, masks and momentum from the checkpoint of another run. Nothing in the file is executed."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn

from altprop.checkpoint_files import BEST, LAST, find_checkpoint
from altprop.names import announced_folders, class_of, public_name
from altprop.nn.weights.base import Dense, SavedWeights, WeightsRule
from altprop.nn.weights.layers import WeightLayer, weight_layers, weight_names
from altprop.problems import ConfigError, Problem
from altprop.tensor_file import BadCheckpoint, read_tensor_file
from altprop.yaml_files import measure

MASK = "0.mask"
"""The name of a sparse weight's mask below its parametrizations."""
_PARAMETRIZED = re.compile(r"^(?P<owner>(?:.*\.)?)parametrizations\.(?P<tensor>[^.]+)\.(?P<part>.+)$")
_OF_RULES = (MASK, "0.permutation")
"""The names of what weights rules save with a model below the parametrizations of a weight."""
_SHOWN = 3
"""How many names of each kind a message lists."""


def read_checkpoint_state(path: str, key: str) -> dict[str, Any]:
    """Return the content of the checkpoint ``path``, on the CPU; see :mod:`altprop.training.checkpoint`.

    ``path`` may be the directory of a run, which stands for the checkpoint of :func:`checkpoint_file`. Raises ``ConfigError``
    about configuration key ``key`` if the file is missing or is not a checkpoint.
    """
    file = checkpoint_file(path, key)
    try:
        state = read_tensor_file(file)
    except BadCheckpoint as error:
        description = f"{file} is not a readable checkpoint ({str(error).removeprefix(f'{file}: ')})"
        raise ConfigError([Problem(key, description, "a checkpoint written by altprop")]) from error
    if not is_checkpoint(state):
        raise ConfigError([Problem(key, f"{file} is not a checkpoint of a run", "a checkpoint written by altprop")])
    return state


def read_algorithm_state(path: str, key: str) -> dict[str, Any]:
    """Return ``Algorithm.state_dict()`` from the checkpoint ``path``, with the errors of :func:`read_checkpoint_state`."""
    return read_checkpoint_state(path, key)["algorithm"]


def checkpoint_file(path: str, key: str) -> Path:
    """Return the file ``path``; for the directory of a run its best checkpoint if it selected one, otherwise the last.

    Raises ``ConfigError`` about configuration key ``key`` if there is no such file.
    """
    folder = Path(path)
    if folder.is_dir():
        for name in (BEST, LAST):
            if (file := find_checkpoint(folder / "checkpoints", name)) is not None:
                return file
        raise ConfigError([Problem(key, f"{path} has no checkpoint", "the directory of a run that has begun")])
    if not folder.exists():
        raise ConfigError([Problem(key, f"no file {path}", "the checkpoint of a run that has finished")])
    return folder


def is_checkpoint(state: object) -> bool:
    """Return whether ``state`` has the form of a checkpoint of altprop."""
    algorithm = state.get("algorithm") if isinstance(state, dict) else None
    return isinstance(algorithm, dict) and isinstance(algorithm.get("model"), dict)


def plain_name(name: str) -> str:
    """Return the name of a tensor without a rule's parametrizations: ``fc.parametrizations.weight.original`` is ``fc.weight``.

    A tensor of a module's own parametrization, such as a spectral norm, is called ``fc.weight:_u``, wherever it is in the chain.
    """
    weight, part = _weight_and_part(name)
    place, _, rest = part.partition(".")
    return weight if part == "original" else f"{weight}:{rest}" if place.isdigit() else name


def _weight_and_part(name: str) -> tuple[str, str]:
    """Return the weight that a tensor is a part of and its name below the parametrizations: ``fc.weight`` and ``0.mask``.

    For a tensor that is not below parametrizations, that is its own name and an empty one.
    """
    match = _PARAMETRIZED.match(name)
    return (name, "") if match is None else (f"{match['owner']}{match['tensor']}", match["part"])


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of ``model`` by plain name, without what its weights rule has added."""
    tensors = model.state_dict()
    return {plain_name(name): value for name, value in tensors.items() if _weight_and_part(name)[1] not in _OF_RULES}


# -- what a network computed with ----------------------------------------------------------------------------------------------


def computed_weights(state: Mapping[str, Any], model: nn.Module, key: str, *, with_masks: bool = True) -> dict[str, Tensor]:
    """Return the tensors of the network in the checkpoint ``state`` by plain name, with the weights that it computed with.

    A sparse weight is zero where its mask is; a binary one consists of signs, times its scale. Without ``with_masks``, sparse
    weights are the dense storage, inactive entries included. ``model`` is the one that they are for. Raises ``ConfigError`` about
    configuration key ``key`` if the file does not say what its weights were.
    """
    weights, stored = _divided(state["algorithm"]["model"])
    if not with_masks:
        stored = {name: parts for name, parts in stored.items() if MASK not in parts}
    layers, first_names = _layers_by_name(model)
    stored = {name: parts for name, parts in stored.items() if name in layers and first_names[name] == name}
    if not stored:
        return weights
    options = rule_options(state)
    rule = _rule_class(options)
    if rule is Dense:  # the module's own parametrizations
        return weights
    first = next(iter(stored))
    if rule is None:
        description = f"the file does not say how {first} was computed"
        raise ConfigError([Problem(key, description, "a checkpoint of altprop with altprop's weights rules")])
    in_order = {name: stored[name] for name in layers if name in stored}
    try:
        computed = rule.computed_weights(SavedWeights(in_order, layers, options, state["algorithm"]["weights"]))
    except NotImplementedError as error:
        description = f"{rule.__name__} does not say how {first} was computed"
        raise ConfigError([Problem(key, description, "a run whose weights rule has computed_weights")]) from error
    return {name: computed.get(first_names.get(name, name), value) for name, value in weights.items()}


def _divided(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Return ``tensors`` by plain name, without those of rules, and the parts of the weights that a rule may have computed."""
    weights: dict[str, Tensor] = {}
    stored: dict[str, dict[str, Tensor]] = {}
    own: set[str] = set()
    for name, value in tensors.items():
        weight, part = _weight_and_part(name)
        if part == "original" or part in _OF_RULES:
            stored.setdefault(weight, {})[part] = value
        elif part.startswith("0."):  # a rule would come first
            own.add(weight)
        if part not in _OF_RULES:
            weights[plain_name(name)] = value
    return weights, {name: parts for name, parts in stored.items() if name not in own}


def _layers_by_name(model: nn.Module) -> tuple[dict[str, WeightLayer], dict[str, str]]:
    """Return the layers of ``model`` by the full names of their weights, and each such name -> the first one of the weight."""
    layers = {(id(layer.module), layer.tensor): layer for layer in weight_layers(model)}
    by_name: dict[str, WeightLayer] = {}
    first_names: dict[str, str] = {}
    firsts: dict[tuple[int, str], str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for tensor in weight_names(module):
            name, place = f"{prefix}.{tensor}".removeprefix("."), (id(module), tensor)
            by_name[name] = layers[place]
            first_names[name] = firsts.setdefault(place, name)
    return by_name, first_names


def rule_options(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the weights rule in the checkpoint ``state``; empty if there is none."""
    text = str(state.get("config") or "")
    try:
        measure(text, "the configuration in the checkpoint")
        config = yaml.safe_load(text)
        options = config["algorithm"]["weights"]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return {}
    return options if isinstance(options, Mapping) else {}


def _rule_class(options: Mapping[str, Any]) -> type[WeightsRule] | None:
    """Return the weights rule that ``options`` name. A file alone must not cause foreign modules to be imported."""
    target = options.get("_target_")
    package = public_name(target).partition(".")[0] if isinstance(target, str) else ""
    announced = {point.module.partition(".")[0] for point in announced_folders()}
    kind = class_of(options) if package in {"altprop", *announced} or package in sys.modules else None
    return kind if kind is not None and issubclass(kind, WeightsRule) else None


# -- loading ---------------------------------------------------------------------------------------------------------------


def load_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], key: str) -> None:
    """Copy ``weights`` into the tensors ``own`` of the same names.

    Raises ``ConfigError`` about configuration key ``key``, in one line, if names are missing or unexpected, or if shapes or kinds
    of numbers differ. Files from before batch norm counted its batches need not have ``num_batches_tracked``.
    """
    if description := differences(own, weights):
        raise ConfigError([Problem(key, description, "the same model")])
    with torch.no_grad():
        for name, value in own.items():
            if name in weights:
                value.copy_(weights[name])


def differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Return in words how ``weights`` differ in names, shapes and kinds of numbers from ``own``; empty if they do not."""
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    shapes = [
        f"{name} has shape {list(weights[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    unexpected = [name for name in weights if name not in own]
    parts = [
        _listed(missing, "{} is missing", "{} are missing"),
        _listed(unexpected, "{} is unexpected", "{} are unexpected"),
        _listed(shapes, "{}", "{}"),
        _listed(different_kinds(own, weights), "{}", "{}"),
    ]
    return "; ".join(filter(None, parts))


def different_kinds(own: Mapping[str, Tensor], saved: Mapping[str, Any]) -> list[str]:
    """Return in words which tensors of ``saved`` are integers, real or complex numbers where those of ``own`` are others.

    Copying would convert them without an error, and lose what they hold.
    """

    def kind(tensor: Tensor) -> tuple[bool, bool]:
        return tensor.is_floating_point(), tensor.is_complex()

    return [
        f"{name} is {str(other.dtype).removeprefix('torch.')} instead of {str(value.dtype).removeprefix('torch.')}"
        for name, value in own.items()
        if isinstance(other := saved.get(name), Tensor) and kind(other) != kind(value)
    ]


def _listed(names: Sequence[str], one: str, many: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (one if len(names) == 1 else many).format(", ".join(names[:_SHOWN]) + more) if names else ""


def saved_masks(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the masks in an algorithm state by the names of their layers (:class:`.WeightLayer`)."""
    parts = ((*_weight_and_part(name), value) for name, value in state["model"].items())
    return {weight.removesuffix(".weight"): value for weight, part, value in parts if part == MASK}


def load_masks(names: Sequence[str], shapes: Sequence[Sequence[int]], state: Mapping[str, Any], key: str) -> Tensor:
    """Return the masks of the weights ``names`` in an algorithm state as one flat buffer ``[units]``.

    Raises ``ConfigError`` about configuration key ``key`` if a mask is missing or has another shape.
    """
    saved = saved_masks(state)
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
    runs have a single optimizer over all parameters of the model, stored in the same shapes.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    order = [plain_name(name) for name in state["model"] if plain_name(name) in parameters]
    saved = state["optimizers"]
    single = len(optimizers) == 1 and len(saved) == 1
    if not single or sum(len(group["params"]) for group in saved[0]["optimizer"]["param_groups"]) != len(parameters):
        description = "several optimizers, or one over a part of the model"
        raise ConfigError([Problem(key, description, "runs with one optimizer over all parameters", "algorithm=backprop")])
    fused = bool(optimizers[0].defaults.get("fused"))  # such an optimizer counts its steps on the device, too
    for place, values in saved[0]["optimizer"]["state"].items():
        parameter = parameters[order[place]]
        if any(isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape for value in values.values()):
            description = f"the momentum of {order[place]} has another shape"
            raise ConfigError([Problem(key, description, "a run whose weights are not tied", "model.weights_from=…")])
        optimizers[0].state[parameter] = {
            name: value.to(parameter.device if fused or value.dim() else value.device, copy=True)
            if isinstance(value, Tensor)
            else value
            for name, value in values.items()
        }
