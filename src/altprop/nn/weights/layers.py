"""Which layers of a model a weights rule applies to: linear and convolutional layers, selected by role or by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

from torch import nn
from torch.nn.utils import parametrize

from altprop.problems import ConfigError, Problem, nearest

ROLES = ("conv", "linear", "first", "stem", "shortcut", "classifier")
"""``conv`` and ``linear`` by type; ``first``: the first such layer; ``stem``: the first one if it is a convolution;
``shortcut``: a 1x1 convolution on a residual connection; ``classifier``: the last layer if it is linear."""


@dataclass(frozen=True)
class WeightLayer:
    """A layer with a weight, its dotted name and the roles it plays."""

    name: str
    module: nn.Linear | nn.Conv2d
    roles: frozenset[str]

    def matches(self, selector: str) -> bool:
        """Whether ``selector`` is one of the layer's roles, its name, or a pattern (``*``, ``?``) that fits its name."""
        return selector in self.roles if selector in ROLES else fnmatchcase(self.name, selector)


def weight_layers(model: nn.Module) -> list[WeightLayer]:
    """Every ``nn.Linear`` and ``nn.Conv2d`` of ``model`` in registration order."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    layers = []
    for place, (name, module) in enumerate(found):
        roles = {"conv" if isinstance(module, nn.Conv2d) else "linear"}
        if place == 0:
            roles |= {"first", "stem"} if isinstance(module, nn.Conv2d) else {"first"}
        if place == len(found) - 1 and isinstance(module, nn.Linear):
            roles.add("classifier")
        on_shortcut = {"shortcut", "downsample"} & set(name.split("."))
        if on_shortcut and isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            roles.add("shortcut")
        layers.append(WeightLayer(name, module, frozenset(roles)))
    return layers


def weight_count(layer: WeightLayer) -> int:
    """Number of weights of ``layer``, without its bias, of the effective weight where it is parametrized."""
    return prod(layer.module.weight.shape)


def register_on_weight(layer: WeightLayer, parametrization: nn.Module) -> nn.Parameter:
    """Let ``parametrization`` compute the layer's weight, and return the parameter that it is computed from."""
    parametrize.register_parametrization(layer.module, "weight", parametrization, unsafe=True)
    stored = layer.module.get_parameter("parametrizations.weight.original")
    assert isinstance(stored, nn.Parameter)
    return stored


def select(model: nn.Module, layers: Sequence[str], dense: Sequence[str], key: str = "algorithm.weights") -> list[WeightLayer]:
    """The layers that match a selector of ``layers`` and none of ``dense``, in registration order.

    Raises ``ConfigError`` for a name that fits no layer and where nothing is selected.
    """
    known = weight_layers(model)
    refuse_unknown([(f"{key}.layers", layers), (f"{key}.dense", dense)], known)
    chosen = [layer for layer in known if _any(layer, layers) and not _any(layer, dense)]
    if not chosen:
        given = f"layers={list(layers)} without dense={list(dense)} selects nothing"
        raise ConfigError([Problem(f"{key}.layers", given, "at least one linear or convolutional layer", f"{key}.dense=[]")])
    return chosen


def refuse_unknown(selectors: Iterable[tuple[str, Iterable[str]]], layers: Sequence[WeightLayer]) -> None:
    """Raise ``ConfigError`` naming every selector that is no role and fits the name of no layer."""
    problems = []
    for key, words in selectors:
        for word in words:
            if word not in ROLES and not any(layer.matches(word) for layer in layers):
                close = nearest(word, [*ROLES, *(layer.name for layer in layers)])
                hint = f"{key}=[{close}]" if close else ""
                problems.append(Problem(key, f"{word!r} fits no layer", f"a role ({', '.join(ROLES)}) or a layer's name", hint))
    if problems:
        raise ConfigError(problems)


def value_for(layer: WeightLayer, values: float | Mapping[str, float]) -> float:
    """The value of ``layer``: ``values`` itself, or that of the last selector in it that matches.

    Raises ``ConfigError`` where none does.
    """
    if not isinstance(values, Mapping):
        return float(values)
    fitting = [value for selector, value in values.items() if layer.matches(selector)]
    if not fitting:
        given = f"nothing in {dict(values)} fits layer {layer.name}"
        raise ConfigError([Problem("algorithm.weights.sparsity", given, "a value for every layer of layers")])
    return float(fitting[-1])


def _any(layer: WeightLayer, selectors: Iterable[str]) -> bool:
    return any(layer.matches(selector) for selector in selectors)
