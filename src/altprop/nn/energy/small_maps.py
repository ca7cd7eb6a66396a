"""Convolutions with many output channels and results of 2 x 2, computed as matrix products.

The convolution kernels of a CPU are made for many positions per weight. For results of 2 x 2 they take up to twice as long as a
matrix product over all windows, whose entries :func:`windows_of` copies. Sums are split into chunks, because one long float32 sum
would have twice the rounding error. Only shapes that round as well as with the convolution kernels are computed here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altprop.nn.energy.edges import Apply, Edge

FEWEST_CHANNELS = 256
"""Output channels of a convolution that is computed here, at least."""
LONG_SUM = 512
"""Products in a sum that has chunks of 64; shorter ones have chunks of 32."""


def is_small_map(edge: Edge, weight: Tensor) -> bool:
    """Whether ``edge`` with this weight is computed faster here, and as exactly: contiguous, in float32 on a CPU."""
    return (
        edge.is_convolution
        and edge.stride == 1
        and edge.padding == 0
        and edge.unpooled[0] >= FEWEST_CHANNELS
        and edge.unpooled[1:] == (2, 2)
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
    )


def small_convolution(edge: Edge, weight: Tensor, bias: Tensor | None) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.convolve` with one weight; its results are channels-last."""
    out_channels, height, width = edge.unpooled
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, out_channels)

    def apply(below: Tensor) -> Tensor:
        drive = chunked_product(windows_of(below, edge.kernel), matrix, bias)
        return drive.view(-1, height, width, out_channels).permute(0, 3, 1, 2)

    return apply


def small_transpose(edge: Edge, weight: Tensor) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.transpose` with one weight; its results are contiguous."""
    (in_channels, *size), (out_channels, height, width), kernel = edge.below, edge.unpooled, edge.kernel
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)

    def apply(unpooled: Tensor) -> Tensor:
        rows = unpooled.permute(0, 2, 3, 1).reshape(-1, out_channels)
        windows = chunked_product(rows, matrix, None).view(-1, height, width, kernel, kernel, in_channels)
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


def chunked_product(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``rows @ matrix + bias``, summed in chunks of 64 or 32 products."""
    size = 64 if rows.shape[1] >= LONG_SUM else 32
    (first, *others), (first_part, *other_parts) = rows.split(size, dim=1), matrix.split(size)
    total = torch.mm(first, first_part)
    for chunk, part in zip(others, other_parts, strict=True):
        torch.addmm(total, chunk, part, out=total)
    return total if bias is None else total.add_(bias)
