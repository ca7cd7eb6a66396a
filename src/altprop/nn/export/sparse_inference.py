"""Inference with torch's sparse kernels in the linear layers for which they are faster."""

from __future__ import annotations

import copy
import statistics
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SparseLinear(nn.Module):
    """``y = x W^T + b`` with ``W`` in compressed sparse rows: ``[batch, in]`` -> ``[batch, out]``. Not trainable.

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
        outputs = (self.weight @ inputs.t()).t()
        return outputs if self.bias is None else outputs + self.bias


@torch.no_grad()
def with_sparse_kernels(model: nn.Module, inputs: Tensor, repeats: int = 20) -> nn.Module:
    """Return a copy of ``model`` for inference whose linear layers use sparse kernels if those are faster on this machine.

    Every linear layer is timed both ways, ``repeats`` times, on its own inputs when the model gets ``inputs``. The copy has plain
    effective weights; its scores equal those of ``model`` up to the order of summation.
    """
    plain = without_parametrizations(model).eval()
    layer_inputs: dict[str, Tensor] = {}
    linears = {name: module for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
    handles = [
        module.register_forward_pre_hook(lambda _, arguments, name=name: layer_inputs.__setitem__(name, arguments[0]))
        for name, module in linears.items()
    ]
    plain(inputs)
    for handle in handles:
        handle.remove()
    for name, module in linears.items():
        sparse = SparseLinear(module.weight, module.bias)
        if name not in layer_inputs:
            continue
        if _seconds(sparse, layer_inputs[name], repeats) < _seconds(module, layer_inputs[name], repeats):
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, sparse)
    return plain


def without_parametrizations(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose layers have their effective weights as plain parameters."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            weights = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
            # torch's remove_parametrizations would delete the property from the class, which the copy shares with the original
            module.__class__ = module.__class__.__bases__[0]
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight))
    return plain


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
