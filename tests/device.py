"""A pretended accelerator: torch's meta device, watched for what would make a GPU wait or fail.

Tensors on the meta device have no values, so whatever reads a value on the host fails by itself. :func:`no_transfers` also
refuses what the meta device lets pass: transfers between the host and the device, and CPU tensors among the arguments of its
operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from altprop.nn.weights.sparse.mask import MaskedWeights

META = torch.device("meta")


class TransferError(AssertionError):
    """An operation copies between host and device, or mixes their tensors."""


class _NoConversions(TorchFunctionMode):
    """Refuses to make device tensors from Python values, which copies from the host."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made_there = func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == META
        if made_there or (func is Tensor.new_tensor and args[0].device == META):
            raise TransferError(f"{func.__name__}(…) makes a tensor on the device from values on the host")
        return func(*args, **kwargs)


class _NoMixing(TorchDispatchMode):
    """Refuses operations on the device that have an argument on the host, apart from single numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_host = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        on_device = any(tensor.device == META for tensor in tensors)
        copies = func._schema.name in ("aten::_to_copy", "aten::copy_")
        if on_host and (kwargs.get("device") == META or (on_device and (copies or any(t.dim() for t in on_host)))):
            raise TransferError(f"{func} takes {[tuple(tensor.shape) for tensor in on_host]} from the host")
        return func(*args, **kwargs)


@contextmanager
def no_transfers() -> Iterator[None]:
    """Raise :class:`TransferError` for an operation inside that copies to the meta device or mixes it with the CPU."""
    with _NoConversions(), _NoMixing():
        yield


class _AnyGenerator(torch.Generator):
    """Torch has no generator for the meta device. One of the CPU takes its place, and nothing is drawn from it."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:
        return super().__new__(torch.Generator)


_recount = MaskedWeights.recount


def _half_active(weights: MaskedWeights) -> None:
    if weights.mask.device != META:
        return _recount(weights)
    weights.alive = weights.mask != 0
    weights._units = None
    weights.active = [size // 2 for size in weights.layout.sizes]


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The meta device, with generators, and with made-up counts of active weights, which sparse rules read once at set-up."""
    monkeypatch.setattr(torch, "Generator", _AnyGenerator)
    monkeypatch.setattr(MaskedWeights, "recount", _half_active)
    return META
