"""Edges of energy-based networks with fixed weights: one weight applied to many states between two updates.

On a CPU every call of a channels-last convolution repacks its weight for the kernel that computes it. If the mini-batch and the
maps are small, that takes longer than the arithmetic, so it is done once here. Contiguous convolutions with very small results
are matrix products (:mod:`altprop.nn.energy.small_maps`). Other contiguous convolutions would gain nothing: they, other devices
and types other than float32 are computed by :mod:`altprop.nn.energy.edges`. Results agree to round-off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from altprop.nn.energy.edges import Apply, Edge, Routing, convolve, left_over, pool, transpose
from altprop.nn.energy.products import ONEDNN, onednn_computes
from altprop.nn.energy.small_maps import is_small_map, small_convolution, small_transpose

_UNCHANGED: tuple[str, list[float], None] = ("none", [], None)
"""Arguments of torch's oneDNN operators for a result that no further function is applied to."""

if ONEDNN and torch.ops.mkldnn._convolution_pointwise not in flop_registry:
    # torch's table has convolutions, but not under these names: FLOP counters would ignore them.

    @register_flop_formula(torch.ops.mkldnn._convolution_pointwise)
    def _forward_flops(below: list[int], weight: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
        return conv_flop_count(below, weight, out_shape)

    @register_flop_formula(torch.ops.mkldnn._convolution_transpose_pointwise)
    def _transposed_flops(unpooled: list[int], weight: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
        return conv_flop_count(unpooled, weight, out_shape, transposed=True)


def fixed_convolution(edge: Edge, weight: Tensor, bias: Tensor | None, batch: int) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.convolve` with one weight, for mini-batches of about ``batch`` samples."""
    if is_small_map(edge, weight):
        return small_convolution(edge, weight, bias, batch)
    if not _packs(edge, weight):
        return partial(convolve, edge, weight=weight, bias=bias)
    around: tuple[list[int], list[int], list[int], int] = ([edge.padding] * 2, [edge.stride] * 2, [1, 1], 1)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *around, [batch, *edge.below])

    def apply(below: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(below, packed, bias, *around, *_UNCHANGED)
        return result

    return apply


def fixed_transpose(edge: Edge, weight: Tensor, batch: int) -> Apply:
    """Return :func:`~altprop.nn.energy.edges.transpose` with one weight, for mini-batches of about ``batch`` samples."""
    if is_small_map(edge, weight):
        return small_transpose(edge, weight, batch)
    if not _packs(edge, weight):
        return partial(transpose, edge, weight=weight)
    around = ([edge.padding] * 2, list(left_over(edge)), [edge.stride] * 2, [1, 1], 1)
    packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *around, [batch, *edge.unpooled])

    def apply(unpooled: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(unpooled, packed, None, *around, *_UNCHANGED)
        return result

    return apply


def fixed_pool(edge: Edge) -> Callable[[Tensor], tuple[Tensor, Routing | None]]:
    """Return :func:`~altprop.nn.energy.edges.pool` for drives of one shape without a graph. Calls overwrite the last result."""
    memory: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def apply(drive: Tensor) -> tuple[Tensor, Routing | None]:
        nonlocal memory
        if edge.pool != "max" or drive.device.type != "cpu" or not drive.is_contiguous():
            return pool(edge, drive)
        if memory is None:
            copy = torch.empty_like(drive, memory_format=torch.channels_last)
            pooled, indices = functional.max_pool2d(copy, 2, return_indices=True)
            memory = (copy, pooled, indices, torch.empty_like(indices, memory_format=torch.contiguous_format))
        copy, pooled, indices, positions = memory
        copy.copy_(drive)
        torch.ops.aten.max_pool2d_with_indices.out(copy, [2, 2], [2, 2], out=pooled, indices=indices)
        return pooled, Routing(positions.copy_(indices), drive)  # unpool would copy them to new memory

    return apply


def _packs(edge: Edge, weight: Tensor) -> bool:
    """Whether oneDNN can compute this edge on this machine, and repacks its weight in every call otherwise."""
    return edge.is_convolution and onednn_computes(weight) and not weight.is_contiguous()
