"""The networks that rules and norms on weights compute, as plain layers and plain states."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.nn.weights.layers import effective_weight, evaluating, parametrizations_of

Kind = TypeVar("Kind", bound=nn.Module)


@dataclass(frozen=True)
class ParametrizedWeight:
    """A weight with parametrizations: its name in a plain state, its module, and the name of the tensor in the module."""

    name: str
    module: nn.Module
    tensor: str

    @property
    def original(self) -> Tensor:
        """The parameter from which the weight is computed, without a graph."""
        return self.module.get_parameter(f"parametrizations.{self.tensor}.original").detach()


def parametrized_weights(model: nn.Module) -> Iterator[ParametrizedWeight]:
    """Yield every parametrized tensor of ``model``, those of a layer with several names under each of them."""
    for name, module in model.named_modules(remove_duplicate=False):
        if parametrize.is_parametrized(module):
            parametrizations = module.parametrizations
            assert isinstance(parametrizations, nn.ModuleDict)
            for tensor in parametrizations:
                yield ParametrizedWeight(f"{name}.{tensor}".removeprefix("."), module, tensor)


def parametrized_by(model: nn.Module, kind: type[Kind]) -> Iterator[tuple[ParametrizedWeight, Kind]]:
    """Yield the weights of ``model`` with a parametrization of class ``kind``, and that parametrization."""
    for weight in parametrized_weights(model):
        for parametrization in parametrizations_of(weight.module, weight.tensor):
            if isinstance(parametrization, kind):
                yield weight, parametrization


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of ``model`` for the same network without parametrizations: effective weights under their plain names.

    Every entry has memory of its own, also if a layer or parameter has several names.
    """
    state = {name: value for name, value in model.state_dict().items() if ".parametrizations." not in f".{name}"}
    for weight in parametrized_weights(model):
        state[weight.name] = effective_weight(weight.module, weight.tensor)
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def without_parametrizations(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose layers have their effective weights as plain parameters."""
    plain = copy.deepcopy(model)
    with torch.no_grad(), evaluating(plain):
        for module in list(plain.modules()):
            if parametrize.is_parametrized(module):
                weights = {name: getattr(module, name).clone() for name in module.parametrizations}  # type: ignore[union-attr]
                # remove_parametrizations would delete the property from the class, which the copy shares with the original
                module.__class__ = module.__class__.__bases__[0]
                del module.parametrizations
                for name, weight in weights.items():
                    module.register_parameter(name, nn.Parameter(weight))
    return plain
