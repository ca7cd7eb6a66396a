"""Units: the activation functions of a model.

Smooth units are differentiated by autograd. A hard unit (:class:`HardUnit`) has a derivative that is zero almost everywhere;
training through it needs an estimator, which the algorithm attaches with :func:`attach_estimator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from altprop.names import class_of
from altprop.nn.units.levels import Kind

UnitsFactory = Callable[[], nn.Module]
"""Builds one activation module. The config group ``model/units`` passes it to a model, which calls it once per activation."""


class HardUnit(nn.Module):
    """Base class of units whose derivative is zero almost everywhere."""

    kind: ClassVar[Kind | None] = None
    """The kind of unit that an estimator's ``fits`` refers to; None for units that estimators know nothing about."""

    estimator: object | None = None
    """Replaces the derivative in the backward pass. Set by the algorithm, never by the model."""

    def forward(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError


def kind_of(node: Any) -> Kind | None:
    """The kind of hard unit that the configured ``node`` builds; None for anything else."""
    unit = class_of(node)
    return unit.kind if unit is not None and issubclass(unit, HardUnit) else None


def hard_units(model: nn.Module) -> Iterator[tuple[str, HardUnit]]:
    """Yield every hard unit of ``model`` with its dotted name, in registration order."""
    for name, module in model.named_modules():
        if isinstance(module, HardUnit):
            yield name, module


def attach_estimator(model: nn.Module, estimator: object | None) -> int:
    """Attach ``estimator`` to every hard unit of ``model`` and return the number of hard units."""
    count = 0
    for _, unit in hard_units(model):
        unit.estimator = estimator
        count += 1
    return count
