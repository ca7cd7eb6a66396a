"""Convolutions with many output channels and results of 2 x 2, computed as matrix products.

The convolution kernels of a CPU are made for many positions per weight. For results of 2 x 2 they take longer than a matrix
product over all windows, whose entries :func:`windows_of` copies. Only shapes that round as well as with the convolution kernels
are computed here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altprop.nn.energy.edges import Apply, Edge
from altprop.nn.energy.products import fixed_product, onednn_computes

FEWEST_CHANNELS = 256
"""Output channels of a convolution that is computed here, at least."""
KERNEL_CHANNELS = 16
"""Input channels of which the kernels add up all products before they go on; sums of this length round as theirs."""
MANY_CHANNELS = 512
"""With this many output channels transposed kernels round worse: sums of 64 products are as exact; with fewer, sums of 48."""


def is_small_map(edge: Edge, weight: Tensor) -> bool:
    """Whether ``edge`` with this weight is computed faster here, and as exactly: contiguous, in float32 on a CPU."""
    return (
        edge.is_convolution
        and edge.stride == 1
        and edge.padding == 0
        and edge.unpooled[0] >= FEWEST_CHANNELS
        and edge.unpooled[1:] == (2, 2)
        and onednn_computes(weight)
        and weight.is_contiguous()
    )


def small_convolution(edge: Edge, weight: Tensor, bias: Tensor | None, batch: int) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.convolve` with one weight; its results are channels-last."""
    out_channels, height, width = edge.unpooled
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)
    multiply = fixed_product(matrix, bias, batch * height * width, KERNEL_CHANNELS * edge.kernel**2)

    def apply(below: Tensor) -> Tensor:
        drive = multiply(windows_of(below, edge.kernel))
        return drive.view(-1, height, width, out_channels).permute(0, 3, 1, 2)

    return apply


def small_transpose(edge: Edge, weight: Tensor, batch: int) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.transpose` with one weight; its results are contiguous."""
    (in_channels, *size), (out_channels, height, width), kernel = edge.below, edge.unpooled, edge.kernel
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, out_channels)
    multiply = fixed_product(matrix, None, batch * height * width, 64 if out_channels >= MANY_CHANNELS else 48)

    def apply(unpooled: Tensor) -> Tensor:
        rows = unpooled.permute(0, 2, 3, 1).reshape(-1, out_channels)
        windows = multiply(rows).view(-1, height, width, kernel, kernel, in_channels)
        drive = windows.new_zeros(windows.shape[0], *size, in_channels)
        for row in range(height):
            for column in range(width):
                drive[:, row : row + kernel, column : column + kernel].add_(windows[:, row, column])
        return drive.permute(0, 3, 1, 2).contiguous()

    return apply


def windows_of(below: Tensor, kernel: int) -> Tensor:
    """Return all windows of ``[batch, channels, height, width]``, ``[batch * positions, kernel * kernel * channels]``."""
    windows = below.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).unfold(1, kernel, 1).unfold(2, kernel, 1)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * below.shape[1])
