"""Penalties on stored weights and their gradients in closed form (section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from altprop.problems import Problem

PenaltyKind = Literal["l1", "group_lasso"]
_EPSILON = 1e-12


def patch_norms(weight: Tensor) -> Tensor:
    """``sqrt(|v|^2 + 1e-12)`` of every kernel slice ``v`` of ``weight`` ``[out, in, height, width]``: ``[out, in, 1, 1]``."""
    return (weight.square().sum(dim=(2, 3), keepdim=True) + _EPSILON).sqrt()


def penalty(weight: Tensor, kind: PenaltyKind) -> Tensor:
    """``sum |w|``; with ``group_lasso`` the sum of the slices' norms for a convolution. A scalar."""
    return patch_norms(weight).sum() if kind == "group_lasso" and weight.dim() == 4 else weight.abs().sum()


def penalty_gradient(weight: Tensor, kind: PenaltyKind) -> Tensor:
    """Gradient of :func:`penalty`: ``sign(w)``, or ``v / sqrt(|v|^2 + 1e-12)`` of every slice; 0 at 0."""
    return weight / patch_norms(weight) if kind == "group_lasso" and weight.dim() == 4 else weight.sign()


class Penalty:
    """``coefficient`` times the penalty of ``kind``, summed over all sparse or tied tensors.

    It acts on the dense storage, inactive entries included, and on tied weights' free values; ``group_lasso`` applies to
    convolutions, and linear layers fall back to L1.
    """

    def __init__(self, coefficient: float, kind: PenaltyKind = "l1") -> None:
        if coefficient < 0:
            raise ValueError(f"algorithm.weights.penalty.coefficient must not be negative, but is {coefficient}")
        if kind not in ("l1", "group_lasso"):
            raise ValueError(f"algorithm.weights.penalty.kind must be 'l1' or 'group_lasso', not {kind!r}")
        self.coefficient = coefficient
        self.kind = kind

    def value(self, weights: Sequence[Tensor]) -> Tensor:
        """The penalty as a device scalar."""
        return torch.stack([penalty(weight.detach(), self.kind) for weight in weights]).sum() * self.coefficient

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the penalty's gradient to ``.grad`` where there is one: what this update does not train, it leaves alone."""
        if self.coefficient == 0.0:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(penalty_gradient(parameter.detach(), self.kind), alpha=self.coefficient)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``penalty``."""
        coefficient = config.get("coefficient", 0.0)
        if isinstance(coefficient, (int, float)) and coefficient < 0:
            yield Problem(
                "algorithm.weights.penalty.coefficient", str(coefficient), "0 or more", "algorithm.weights.penalty.coefficient=0"
            )


def trained_among(candidates: Sequence[nn.Parameter], parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Those of ``candidates`` that are among ``parameters``, by identity and in the order of ``candidates``."""
    present = {id(parameter) for parameter in parameters}
    return [candidate for candidate in candidates if id(candidate) in present]
