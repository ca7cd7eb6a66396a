"""Binary effective weights with a straight-through gradient (Lan 2021, sections 2.1 and 2.2 of our specification)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Scale = Literal["none", "layer", "channel"]
SCALES = ("none", "layer", "channel")


def sign(weight: Tensor, zero: int = 0) -> Tensor:
    """The sign of every entry; an exact zero becomes ``zero``, which is 0 (as published) or 1."""
    if zero == 0:
        return torch.sign(weight)
    return torch.ge(weight, 0).to(weight.dtype).mul_(2).sub_(1)


def magnitude(weight: Tensor, scale: Scale) -> Tensor:
    """Mean absolute value of ``weight`` ``[out, in, ...]``: ``[]`` of the layer, ``[out, 1, ...]`` of each output channel."""
    if scale == "layer":
        return weight.abs().mean()
    return weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def binarized(weight: Tensor, zero: int = 0, scale: Scale = "none") -> Tensor:
    """The effective weight of a binary layer: ``sgn(W)``, times its mean magnitude where a ``scale`` is asked for."""
    signs = sign(weight, zero)
    return signs if scale == "none" else signs.mul_(magnitude(weight, scale))


class _StraightThrough(torch.autograd.Function):
    """``W -> binarized(W)`` whose derivative is taken to be the identity: no mask, no scaling."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, zero: int, scale: Scale) -> Tensor:
        return binarized(weight, zero, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class Binarization(nn.Module):
    """The parametrization of one layer's weight: latent ``W`` -> ``binarized(W)`` while :attr:`binary`, else ``W`` itself."""

    def __init__(self, zero: int = 0, scale: Scale = "none") -> None:
        super().__init__()
        self.zero = zero
        self.scale: Scale = scale
        # A Python constant, not a buffer: it follows from the epoch, and the forward pass must not ask the device for it.
        self.binary = False

    def forward(self, latent: Tensor) -> Tensor:
        return _StraightThrough.apply(latent, self.zero, self.scale) if self.binary else latent

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The latent weight for an assigned weight: the weight itself."""
        return weight

    def effective(self, latent: Tensor) -> Tensor:
        """A new tensor with the effective weight of ``latent``, outside of any graph."""
        detached = latent.detach()
        return binarized(detached, self.zero, self.scale) if self.binary else detached.clone()
