"""The linear and convolutional layers of a model: roles, selection by role or name, and uses of each weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.nn.weights.base import KEY
from altprop.problems import ConfigError, Problem, nearest

ROLES = ("conv", "linear", "first", "stem", "shortcut", "classifier")
"""``conv`` and ``linear``: by type; ``first``: the first such layer; ``stem``: the first one if it is a convolution;
``shortcut``: a 1x1 convolution on a residual connection; ``classifier``: the last layer if it is linear."""


@dataclass(frozen=True)
class WeightLayer:
    """A layer with a weight, its dotted name and its roles."""

    name: str
    module: nn.Linear | nn.Conv2d
    roles: frozenset[str]

    def matches(self, selector: str) -> bool:
        """Return whether ``selector`` is one of the layer's roles, its name, or a pattern (``*``, ``?``) that fits its name."""
        return selector in self.roles if selector in ROLES else fnmatchcase(self.name, selector)


def weight_layers(model: nn.Module) -> list[WeightLayer]:
    """Return every ``nn.Linear`` and ``nn.Conv2d`` of ``model`` in registration order."""
    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    layers = []
    for place, (name, module) in enumerate(modules):
        roles = {"conv" if isinstance(module, nn.Conv2d) else "linear"}
        if place == 0:
            roles |= {"first", "stem"} if isinstance(module, nn.Conv2d) else {"first"}
        if place == len(modules) - 1 and isinstance(module, nn.Linear):
            roles.add("classifier")
        on_shortcut = {"shortcut", "downsample"} & set(name.split("."))
        if on_shortcut and isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            roles.add("shortcut")
        layers.append(WeightLayer(name, module, frozenset(roles)))
    return layers


def weight_count(layer: WeightLayer) -> int:
    """Return the number of entries in the effective weight of ``layer``, without its bias."""
    return prod(layer.module.weight.shape)


def register_on_weight(layer: WeightLayer, parametrization: nn.Module) -> nn.Parameter:
    """Let ``parametrization`` compute the layer's weight, and return the parameter from which it is computed."""
    parametrize.register_parametrization(layer.module, "weight", parametrization, unsafe=True)
    stored = layer.module.get_parameter("parametrizations.weight.original")
    assert isinstance(stored, nn.Parameter)
    return stored


def select(model: nn.Module, layers: Sequence[str], dense: Sequence[str], key: str = KEY) -> list[WeightLayer]:
    """Return the layers that match a selector of ``layers`` and none of ``dense``, in registration order.

    Raises ``ConfigError`` if a name fits no layer or nothing is selected.
    """
    candidates = weight_layers(model)
    refuse_unknown([(f"{key}.layers", layers), (f"{key}.dense", dense)], candidates)
    selected = [layer for layer in candidates if _matches_any(layer, layers) and not _matches_any(layer, dense)]
    if not selected:
        description = f"layers={list(layers)} without dense={list(dense)} selects nothing"
        allowed = "at least one linear or convolutional layer"
        raise ConfigError([Problem(f"{key}.layers", description, allowed, f"{key}.dense=[]")])
    return selected


def refuse_unknown(selectors: Iterable[tuple[str, Iterable[str]]], layers: Sequence[WeightLayer]) -> None:
    """Raise ``ConfigError`` with every selector that is not a role and fits the name of no layer.

    ``selectors`` are pairs of a configuration key and the selectors given there.
    """
    problems = []
    for key, words in selectors:
        for word in words:
            if word not in ROLES and not any(layer.matches(word) for layer in layers):
                close = nearest(word, [*ROLES, *(layer.name for layer in layers)])
                fix = f"{key}=[{close}]" if close else ""
                problems.append(Problem(key, f"{word!r} fits no layer", f"a role ({', '.join(ROLES)}) or a layer's name", fix))
    if problems:
        raise ConfigError(problems)


def value_for(layer: WeightLayer, values: float | Mapping[str, float]) -> float:
    """Return the value of ``layer``: ``values`` itself, or that of the last selector in it that matches.

    Raises ``ConfigError`` if no selector matches.
    """
    if not isinstance(values, Mapping):
        return float(values)
    matches = [value for selector, value in values.items() if layer.matches(selector)]
    if not matches:
        description = f"nothing in {dict(values)} fits layer {layer.name}"
        raise ConfigError([Problem(f"{KEY}.sparsity", description, "a value for every layer that layers selects")])
    return float(matches[-1])


def _matches_any(layer: WeightLayer, selectors: Iterable[str]) -> bool:
    return any(layer.matches(selector) for selector in selectors)


def positions_per_weight(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Return how often a forward pass of one input uses each weight of every linear and convolutional layer, by layer name.

    That is once for a linear layer, and height times width of the output for a convolution, grouped or not. Runs ``model`` once
    on zeros, in eval mode.
    """
    uses: dict[str, int] = {}
    handles = []

    def counter(name: str, channels: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            uses[name] = uses.get(name, 0) + output.numel() // channels

        return hook

    for layer in weight_layers(model):
        handles.append(layer.module.register_forward_hook(counter(layer.name, layer.module.weight.shape[0])))
    like = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(like.new_zeros(1, *input_shape))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return uses
