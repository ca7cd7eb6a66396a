"""Units: the activation functions of a model.

Smooth units are differentiated as they stand. A hard unit (:class:`HardUnit`) has a derivative that is zero almost everywhere;
training through it needs an estimator, which the algorithm attaches with :func:`attach_estimator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

UnitsFactory = Callable[[], nn.Module]
"""Builds one activation module; the config group ``model/units`` gives it to a model, which calls it once per activation."""


class HardUnit(nn.Module):
    """Base of units whose derivative is zero almost everywhere.

    ``estimator`` is what stands in for that derivative in the backward pass; it is set by the algorithm, never by the model.
    """

    estimator: object | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError


def hard_units(model: nn.Module) -> Iterator[tuple[str, HardUnit]]:
    """Every hard unit of ``model`` with its dotted name, in registration order."""
    for name, module in model.named_modules():
        if isinstance(module, HardUnit):
            yield name, module


def attach_estimator(model: nn.Module, estimator: object | None) -> int:
    """Give ``estimator`` to every hard unit of ``model`` and return how many there are."""
    count = 0
    for _, unit in hard_units(model):
        unit.estimator = estimator
        count += 1
    return count
