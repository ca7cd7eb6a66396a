"""Penalties on stored weights, with their gradients in closed form (section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import KEY
from altprop.problems import Problem
from altprop.ranges import NonNegativeFloat

PenaltyKind = Literal["l1", "group_lasso"]
_EPSILON = 1e-12


def patch_norms(weight: Tensor) -> Tensor:
    """``sqrt(|v|^2 + 1e-12)`` of every kernel slice ``v`` of ``weight`` ``[out, in, *kernel]``: ``[out, in, 1, ...]``."""
    return (weight.square().sum(dim=tuple(range(2, weight.dim())), keepdim=True) + _EPSILON).sqrt()


class Penalty:
    """A penalty on weights, summed over all sparse or tied tensors.

    It acts on the dense storage, inactive entries included, and on the free values of tied weights.

    Args:
        coefficient: Factor of the penalty; at least 0.
        kind: ``l1`` is ``sum |w|``. ``group_lasso`` is the sum of the norms of the kernel slices of convolutions
            (:func:`patch_norms`); other layers use L1.
    """

    def __init__(self, *, coefficient: NonNegativeFloat, kind: PenaltyKind = "l1") -> None:
        if coefficient < 0:
            raise ValueError(f"{KEY}.penalty.coefficient must not be negative, but is {coefficient}")
        if kind not in ("l1", "group_lasso"):
            raise ValueError(f"{KEY}.penalty.kind must be 'l1' or 'group_lasso', not {kind!r}")
        self.coefficient = coefficient
        self.kind = kind

    def _grouped(self, weight: Tensor) -> bool:
        return self.kind == "group_lasso" and weight.dim() > 2

    def raw(self, weight: Tensor) -> Tensor:
        """The penalty of one tensor without the coefficient, a scalar."""
        return patch_norms(weight).sum() if self._grouped(weight) else weight.abs().sum()

    def raw_gradient(self, weight: Tensor) -> Tensor:
        """Gradient of :meth:`raw`: ``sign(w)``, or ``v / sqrt(|v|^2 + 1e-12)`` for every slice ``v``; 0 at 0."""
        return weight / patch_norms(weight) if self._grouped(weight) else weight.sign()

    def value(self, weights: Sequence[Tensor]) -> Tensor:
        """The penalty of all ``weights``, coefficient included, as a device scalar."""
        return torch.stack([self.raw(weight.detach()) for weight in weights]).sum() * self.coefficient

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the penalty's gradient to ``.grad``. Parameters without one are not trained by this update and are skipped."""
        if self.coefficient == 0.0:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(self.raw_gradient(parameter.detach()), alpha=self.coefficient)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``penalty``."""
        coefficient = config.get("coefficient", 0.0)
        if isinstance(coefficient, (int, float)) and coefficient < 0:
            key = f"{KEY}.penalty.coefficient"
            yield Problem(key, str(coefficient), "0 or more", f"{key}=0")


def trained_among(candidates: Sequence[nn.Parameter], parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return those of ``candidates`` that are among ``parameters``, by identity and in the order of ``candidates``."""
    present = {id(parameter) for parameter in parameters}
    return [candidate for candidate in candidates if id(candidate) in present]
