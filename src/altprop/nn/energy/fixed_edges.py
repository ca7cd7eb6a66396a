"""Edges of energy-based networks between two changes of their weights, when one weight meets many states.

On a CPU every call of a convolution rearranges its weight for the kernel that computes it; where mini-batch and maps are small,
that takes longer than the arithmetic. Here it is done once. On other devices, and in other types than float32, the functions of
:mod:`.energy_edges` compute the edge; results agree to round-off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from altprop.nn.energy.edges import Edge, convolve, left_over, transpose

Apply = Callable[[Tensor], Tensor]

_UNCHANGED: tuple[str, list[float], None] = ("none", [], None)
"""What oneDNN's operators of torch take for a result that goes through no further function."""


ONEDNN = torch.backends.mkldnn.is_available()

if ONEDNN and torch.ops.mkldnn._convolution_pointwise not in flop_registry:
    # torch's table has convolutions, but not under these names: without this, whoever counts operations would pass them over.

    @register_flop_formula(torch.ops.mkldnn._convolution_pointwise)
    def _forward_flops(below: list[int], weight: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
        return conv_flop_count(below, weight, out_shape)

    @register_flop_formula(torch.ops.mkldnn._convolution_transpose_pointwise)
    def _transposed_flops(unpooled: list[int], weight: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
        return conv_flop_count(unpooled, weight, out_shape, transposed=True)


def fixed_convolution(edge: Edge, weight: Tensor, bias: Tensor | None, batch: int) -> Apply:
    """:func:`.energy_edges.convolve` of one weight, for mini-batches of about ``batch`` samples."""
    if not _packs(edge, weight):
        return partial(convolve, edge, weight=weight, bias=bias)
    around: tuple[list[int], list[int], list[int], int] = ([edge.padding] * 2, [edge.stride] * 2, [1, 1], 1)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *around, [batch, *edge.below])

    def apply(below: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(below, packed, bias, *around, *_UNCHANGED)
        return result

    return apply


def fixed_transpose(edge: Edge, weight: Tensor, batch: int) -> Apply:
    """:func:`.energy_edges.transpose` of one weight, for mini-batches of about ``batch`` samples."""
    if not _packs(edge, weight):
        return partial(transpose, edge, weight=weight)
    around = ([edge.padding] * 2, list(left_over(edge)), [edge.stride] * 2, [1, 1], 1)
    packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *around, [batch, *edge.unpooled])

    def apply(unpooled: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(unpooled, packed, None, *around, *_UNCHANGED)
        return result

    return apply


def _packs(edge: Edge, weight: Tensor) -> bool:
    """Whether oneDNN computes this edge here."""
    return (
        ONEDNN
        and bool(torch.backends.mkldnn.enabled)
        and edge.is_convolution
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
    )
