"""Adaptive average pooling that is also available with deterministic CUDA kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """``nn.AdaptiveAvgPool2d`` that can be trained on CUDA under ``torch.use_deterministic_algorithms``.

    PyTorch has no deterministic CUDA kernel for its backward pass. In that case alone, the means are computed as products with
    two constant matrices (:func:`averaging_matrix`), which changes rounding.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Pool ``inputs`` ``[batch, channels, height, width]`` to ``[batch, channels, *output_size]``."""
        if not (inputs.is_cuda and inputs.requires_grad and torch.are_deterministic_algorithms_enabled()):
            return super().forward(inputs)
        size = self.output_size
        height, width = (size, size) if isinstance(size, int | None) else size
        return pooled_by_products(inputs, height or inputs.shape[-2], width or inputs.shape[-1])


def pooled_by_products(inputs: Tensor, height: int, width: int) -> Tensor:
    """Return the adaptive average pooling of ``inputs`` ``[batch, channels, ., .]`` to ``height`` x ``width`` as two products."""
    rows = averaging_matrix(inputs.shape[-2], height, inputs)
    columns = averaging_matrix(inputs.shape[-1], width, inputs)
    return rows @ inputs @ columns.t()


def averaging_matrix(size: int, pooled: int, like: Tensor) -> Tensor:
    """Return ``[pooled, size]``: row i averages the entries ``floor(i size / pooled)`` to ``ceil((i + 1) size / pooled)``.

    Computed on the device and in the dtype of ``like``, without a host sync.
    """
    index = torch.arange(pooled, device=like.device)
    starts = index * size // pooled
    ends = ((index + 1) * size + pooled - 1) // pooled
    position = torch.arange(size, device=like.device)
    inside = (position >= starts[:, None]) & (position < ends[:, None])
    return inside.to(like.dtype) / (ends - starts)[:, None].to(like.dtype)
