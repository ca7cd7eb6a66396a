"""A metric of a run's own: a function of scores and targets, or a class of torchmetrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: It is recorded as ``<split>/<name>``.
        factory: A partial of a function ``(scores [batch, classes], targets [batch])``, which returns one value per sample,
            ``[batch]``, or the mean over the batch; or a partial of a class of torchmetrics.
    """

    name: str
    factory: Callable[..., Any]

    @property
    def target(self) -> Callable[..., Any]:
        """The function or class itself."""
        return getattr(self.factory, "func", self.factory)

    @property
    def is_function(self) -> bool:
        """Whether the metric is a function. Only functions are recorded in training, too."""
        return not isinstance(self.target, type)

    def mean(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The mean of a function over a batch, as a device scalar without a graph."""
        with torch.no_grad():
            values = self.factory(scores.detach(), targets)
            return values.to(torch.float32 if values.device.type == "mps" else torch.float64).mean()  # MPS has no float64

    def build(self, num_classes: int, device: torch.device) -> Any:
        """A new object of the class of torchmetrics on ``device``.

        It gets the number of classes if it takes one and the configuration does not set it, and ``validate_args=False``, because
        the checks would wait for the device in every batch.
        """
        supplied = {"num_classes": num_classes, "validate_args": False}
        known = inspect.signature(self.target).parameters
        configured = getattr(self.factory, "keywords", {})
        arguments = {name: value for name, value in supplied.items() if name in known and name not in configured}
        return self.factory(**arguments).to(device)


def is_torchmetric(target: Any) -> bool:
    """Whether ``target`` is a class derived from ``torchmetrics.Metric``, without importing torchmetrics."""
    return isinstance(target, type) and any(f"{base.__module__}.".startswith("torchmetrics.") for base in target.__mro__)


def check_on_example(metric: Metric, num_classes: int) -> None:
    """Compute ``metric`` once for ``num_classes`` samples on the CPU. Raises ValueError if the result has no usable shape."""
    scores, targets = torch.eye(num_classes), torch.arange(num_classes)
    if metric.is_function:
        value = metric.factory(scores, targets)
    else:
        accumulator = metric.build(num_classes, torch.device("cpu"))
        accumulator.update(scores, targets)
        value = accumulator.compute()
    allowed = ((), (num_classes,)) if metric.is_function else ((), (1,))
    if not isinstance(value, Tensor) or tuple(value.shape) not in allowed:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        expected = "one value per sample or a scalar" if metric.is_function else "a scalar"
        raise ValueError(f"it returns {shape} for {num_classes} samples; it must return {expected}")
