"""Binary effective weights with a straight-through gradient (Lan 2021, sections 2.1 and 2.2 of our specification)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Scale = Literal["none", "layer", "channel"]


def sign(weight: Tensor, zero: int = 0) -> Tensor:
    """Return the sign of every entry; that of an exact zero is ``zero``, 0 (as published) or 1."""
    if zero == 0:
        return torch.sign(weight)
    return torch.ge(weight, 0).to(weight.dtype).mul_(2) - 1


def magnitude(weight: Tensor, scale: Scale, transposed_groups: int = 0) -> Tensor:
    """Return the mean absolute value of ``weight`` ``[out, in, ...]``: ``[]`` per layer, ``[out, 1, ...]`` per output channel.

    With ``transposed_groups``, the weight is that of a transposed convolution with so many groups, ``[in, out, ...]``, and the
    magnitudes per output channel of each group are repeated for its inputs, ``[in, out, 1, ...]``.
    """
    if scale == "layer":
        return weight.abs().mean()
    if transposed_groups:
        grouped = weight.abs().unflatten(0, (transposed_groups, -1))
        means = grouped.mean(dim=(1, *range(3, grouped.dim())), keepdim=True)
        return means.expand(-1, grouped.shape[1], *means.shape[2:]).flatten(0, 1)
    return weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def binarized(weight: Tensor, zero: int = 0, scale: Scale = "none", transposed_groups: int = 0) -> Tensor:
    """Return the effective weight of a binary layer: ``sgn(W)``, times the mean magnitude with a ``scale``."""
    # out of place: torch.compile of PyTorch 2.11 drops the gradient of an autograd.Function whose output was written in place
    signs = sign(weight, zero)
    return signs if scale == "none" else signs * magnitude(weight, scale, transposed_groups)


class _StraightThrough(torch.autograd.Function):
    """``W -> binarized(W)`` with the identity as its derivative: no mask, no scaling."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, zero: int, scale: Scale, transposed_groups: int) -> Tensor:
        return binarized(weight, zero, scale, transposed_groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient, None, None, None


class Binarization(nn.Module):
    """Parametrization of one layer's weight: latent ``W`` -> ``binarized(W)`` while :attr:`binary` is set, else ``W`` itself."""

    def __init__(self, zero: int = 0, scale: Scale = "none", transposed_groups: int = 0) -> None:
        super().__init__()
        self.zero = zero
        self.scale: Scale = scale
        self.transposed_groups = transposed_groups
        # a Python value, not a buffer: it follows from the epoch, and reading it in the forward pass must not wait for the device
        self.binary = False

    def forward(self, latent: Tensor) -> Tensor:
        return _StraightThrough.apply(latent, self.zero, self.scale, self.transposed_groups) if self.binary else latent

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the latent weight for an assigned weight: the weight itself."""
        return weight

    def effective(self, latent: Tensor) -> Tensor:
        """Return the effective weight of ``latent`` as a new tensor without a graph."""
        detached = latent.detach()
        return binarized(detached, self.zero, self.scale, self.transposed_groups) if self.binary else detached.clone()
