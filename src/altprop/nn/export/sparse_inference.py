"""Inference with torch's sparse kernels in the linear layers for which they are faster."""

from __future__ import annotations

import statistics
import time
import warnings

import torch
from torch import Tensor, nn

from altprop.nn.export.plain import without_parametrizations


class SparseLinear(nn.Module):
    """``y = x W^T + b`` with ``W`` in compressed sparse rows: ``[..., in]`` -> ``[..., out]``. Not trainable.

    Args:
        weight: ``[out, in]``, dense.
        bias: ``[out]``, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.weight = weight.detach().to_sparse_csr()
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = (self.weight @ rows.t()).t()
        outputs = outputs if self.bias is None else outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], -1)


@torch.no_grad()
def with_sparse_kernels(model: nn.Module, inputs: Tensor, repeats: int = 20) -> nn.Module:
    """Return a copy of ``model`` for inference whose linear layers use sparse kernels if those are faster on this machine.

    Every linear layer is timed both ways, ``repeats`` times, on its own inputs when the model gets ``inputs``. The copy has plain
    effective weights; its scores equal those of ``model`` up to the order of summation. Linear layers that other layers read
    instead of calling them, as torch's attention and transformer layers do, stay dense.
    """
    plain = without_parametrizations(model).eval()
    layer_inputs: dict[nn.Module, Tensor] = {}
    read_by_others = {
        child
        for module in plain.modules()
        if isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)
        for child in module.children()
    }
    linears = [module for module in plain.modules() if isinstance(module, nn.Linear) and module not in read_by_others]
    handles = [
        module.register_forward_pre_hook(lambda module, arguments: layer_inputs.__setitem__(module, arguments[0]))
        for module in linears
    ]
    plain(inputs)
    for handle in handles:
        handle.remove()
    for module, seen in layer_inputs.items():
        assert isinstance(module, nn.Linear)
        sparse = SparseLinear(module.weight, module.bias)
        if _seconds(sparse, seen, repeats) < _seconds(module, seen, repeats):
            _replace(plain, module, sparse)
    return plain


def _replace(model: nn.Module, layer: nn.Module, other: nn.Module) -> None:
    """Put ``other`` in the place of ``layer`` under all of its names in ``model``, and in the chain of a feed-forward model."""
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is layer:
                setattr(module, name, other)
    if hasattr(model, "chain") and hasattr(model, "blocks") and hasattr(model, "head"):
        blocks = [other if block is layer else block for block in model.blocks]  # type: ignore[union-attr]
        model.chain(blocks, other if model.head is layer else model.head)  # type: ignore[operator]


def _seconds(module: nn.Module, inputs: Tensor, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        if inputs.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        module(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
