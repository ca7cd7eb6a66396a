"""How well one direction in parameter space stands for another: pure functions over tensors and over dicts of them.

For probes that compare what an algorithm would do with the true gradient. A series has time as its first dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """An update direction beside the gradient: ``angle`` in degrees, ``norm_ratio`` ``|update| / |gradient|``,
    ``relative_error`` ``|update - gradient| / |gradient|``, all device scalars."""

    angle: Tensor
    norm_ratio: Tensor
    relative_error: Tensor


def angle(first: Tensor, second: Tensor) -> Tensor:
    """The angle between two tensors of one shape, in degrees; 90 where one of them is zero.

    Exact for small angles, where the arc cosine of a rounded inner product is not, and never NaN (Kahan's formula).
    """
    first, second = first.detach().flatten().double(), second.detach().flatten().double()
    first_norm, second_norm = first.norm(), second.norm()
    left, right = first * second_norm, second * first_norm
    degrees = torch.rad2deg(2.0 * torch.atan2((left - right).norm(), (left + right).norm()))
    return torch.where((first_norm == 0) | (second_norm == 0), torch.full_like(degrees, 90.0), degrees)


def align(update: Tensor, gradient: Tensor) -> Alignment:
    """``update`` beside ``gradient``, tensors of one shape."""
    norm = gradient.detach().double().norm().clamp_min(torch.finfo(torch.float64).tiny)
    return Alignment(
        angle(update, gradient), update.detach().double().norm() / norm, (update - gradient).detach().double().norm() / norm
    )


def align_all(updates: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Alignment]:
    """:func:`align` for every name that both have."""
    return {name: align(update, gradients[name]) for name, update in updates.items() if name in gradients}


def series_error(first: Tensor, second: Tensor) -> Tensor:
    """Relative root mean square difference over time, averaged over entries, of two series ``[time, *shape]``.

    Of each entry ``sqrt(mean_t (a - b)^2) / max(sqrt(mean_t a^2), sqrt(mean_t b^2))``; 0 where both are zero throughout.
    """
    largest = torch.maximum(_root_mean_square(first), _root_mean_square(second))
    return (_root_mean_square(first - second) / (1e-10 + largest)).mean()


def sign_error(first: Tensor, second: Tensor) -> Tensor:
    """The share of entries and times at which two series have opposite signs."""
    return (first * second < 0).double().mean()


def bias_ratio(right: Tensor, left: Tensor, reference: Tensor) -> Tensor:
    """``2 |(e1 + e2) / 2 - b| / (|e1 - b| + |e2 - b|)``, averaged over entries: what averaging two one-sided estimates of ``b``
    leaves of their errors; 1 for an entry whose estimates are exact."""
    errors = (right - reference).abs() + (left - reference).abs()
    both = 2.0 * (0.5 * (right + left) - reference).abs()
    return torch.where(errors == 0, torch.ones_like(errors), both / errors.clamp_min(torch.finfo(errors.dtype).tiny)).mean()


def _root_mean_square(series: Tensor) -> Tensor:
    return series.square().mean(dim=0).sqrt()
