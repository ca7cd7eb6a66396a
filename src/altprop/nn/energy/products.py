"""Matrix products on a CPU in float32, computed by oneDNN in short sums.

torch's own products take up to twice as long. oneDNN adds up a whole sum in one go, which rounds worse than torch's products do;
in chunks of at most :data:`LONGEST_SUM` terms it rounds better. Small products, those on other devices or of other types, and
those that autograd records are computed by torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

LONGEST_SUM = 200
"""Terms in one sum of oneDNN, at most."""
FEWEST_TERMS = 2**20
"""A call of oneDNN pays off for products with at least this many multiplications."""
ONEDNN = torch.backends.mkldnn.is_available()

if ONEDNN and torch.ops.mkldnn._linear_pointwise not in flop_registry:
    # torch's table has matrix products, but not under this name: FLOP counters would ignore them.

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(rows: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
        return 2 * rows[-1] * math.prod(out_shape)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``rows @ weight.T + bias``: ``[rows, inputs]``, ``[outputs, inputs]``, ``[outputs]`` -> ``[rows, outputs]``."""
    if not _uses_onednn(rows, weight):
        return functional.linear(rows, weight, bias)
    return _summed(_parts(rows, LONGEST_SUM), _parts(weight, LONGEST_SUM), bias)


def outer_products(above: Tensor, below: Tensor, total: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return ``above.T @ below``, a sum over the batch: ``[batch, outputs]``, ``[batch, inputs]`` -> ``[outputs, inputs]``.

    If ``total`` is given, the result is added to it, and it may be overwritten. ``out`` receives the result if torch computes it.
    """
    if _uses_onednn(above.t(), below.t()):
        return _summed(_parts(above.t(), LONGEST_SUM), _parts(below.t(), LONGEST_SUM), total=total)
    return torch.mm(above.t(), below, out=out) if total is None else total.addmm_(above.t(), below)


def fixed_product(weight: Tensor, bias: Tensor | None, rows: int, longest_sum: int = LONGEST_SUM) -> Callable[[Tensor], Tensor]:
    """Return :func:`product` by oneDNN with one weight, packed for about ``rows`` rows, in sums of ``longest_sum`` terms."""
    packed = [torch.ops.mkldnn._reorder_linear_weight(part, rows) for part in _parts(weight, longest_sum)]
    return lambda values: _summed(_parts(values, longest_sum), packed, bias)


def onednn_computes(tensor: Tensor) -> bool:
    """Whether oneDNN computes in this type and on this device, and is not switched off."""
    return ONEDNN and bool(torch.backends.mkldnn.enabled) and tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _uses_onednn(rows: Tensor, weight: Tensor) -> bool:
    return (
        rows.shape[0] * weight.numel() >= FEWEST_TERMS
        and onednn_computes(rows)
        and weight.dtype == rows.dtype
        and not (torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad))
    )


def _parts(matrix: Tensor, longest_sum: int) -> list[Tensor]:
    """Split the columns; every part or its transpose is contiguous: with other strides oneDNN is a thousand times slower."""
    parts = matrix.chunk(math.ceil(matrix.shape[1] / longest_sum), dim=1)
    return [part if part.t().is_contiguous() else part.contiguous() for part in parts]


def _summed(rows: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    multiply = torch.ops.mkldnn._linear_pointwise
    for part, weight in zip(rows, weights, strict=True):
        if total is None:
            total = multiply(part, weight, bias, "none", [], "")
        else:
            total = multiply.binary(part, total, weight, None, "add")
    assert total is not None
    return total
