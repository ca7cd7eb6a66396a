"""Measures of how well one direction in parameter space approximates another: pure functions of tensors and dicts of tensors.

Probes use them to compare the update of an algorithm with the true gradient. A series has time as its first dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """An update direction compared with the gradient, as device scalars."""

    angle: Tensor
    """In degrees."""
    norm_ratio: Tensor
    """``|update| / |gradient|``."""
    relative_error: Tensor
    """``|update - gradient| / |gradient|``."""


def angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between two tensors of the same shape in degrees, or 90 if one of them is zero.

    Kahan's formula: it is never NaN, and exact for small angles, unlike the arc cosine of a rounded inner product.
    """
    first, second = first.detach().flatten().double(), second.detach().flatten().double()
    first_norm, second_norm = first.norm(), second.norm()
    left, right = first * second_norm, second * first_norm
    degrees = torch.rad2deg(2.0 * torch.atan2((left - right).norm(), (left + right).norm()))
    return torch.where((first_norm == 0) | (second_norm == 0), torch.full_like(degrees, 90.0), degrees)


def align(update: Tensor, gradient: Tensor) -> Alignment:
    """Compare ``update`` with ``gradient``, two tensors of the same shape."""
    norm = gradient.detach().double().norm().clamp_min(torch.finfo(torch.float64).tiny)
    return Alignment(
        angle(update, gradient), update.detach().double().norm() / norm, (update - gradient).detach().double().norm() / norm
    )


def align_all(updates: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Alignment]:
    """Return :func:`align` for each name that is in both."""
    return {name: align(update, gradients[name]) for name, update in updates.items() if name in gradients}


def series_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the relative root mean square difference of two series ``[time, *shape]``, averaged over entries.

    For each entry it is ``sqrt(mean_t (a - b)^2) / max(sqrt(mean_t a^2), sqrt(mean_t b^2))``, or 0 if both are always zero.
    """
    largest = torch.maximum(_root_mean_square(first), _root_mean_square(second))
    return (_root_mean_square(first - second) / (1e-10 + largest)).mean()


def sign_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the fraction of entries and times at which two series have opposite signs."""
    return (first * second < 0).double().mean()


def bias_ratio(right: Tensor, left: Tensor, reference: Tensor) -> Tensor:
    """Return the fraction of the errors of two one-sided estimates that is left after averaging them, averaged over entries.

    For estimates ``e1``, ``e2`` of ``b`` it is ``2 |(e1 + e2) / 2 - b| / (|e1 - b| + |e2 - b|)``, or 1 if both are exact.
    """
    errors = (right - reference).abs() + (left - reference).abs()
    both = 2.0 * (0.5 * (right + left) - reference).abs()
    return torch.where(errors == 0, torch.ones_like(errors), both / errors.clamp_min(torch.finfo(errors.dtype).tiny)).mean()


def _root_mean_square(series: Tensor) -> Tensor:
    return series.square().mean(dim=0).sqrt()
