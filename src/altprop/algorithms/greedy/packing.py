"""Sending state dicts through pipes by value, without memory that two processes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class PackedTensor:
    """A tensor as plain bytes."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype = tensor.dtype
        self.shape = tuple(tensor.shape)
        self.data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()

    def tensor(self) -> Tensor:
        """Return the tensor, on the CPU."""
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype).reshape(self.shape) if self.data else torch.empty(0)


def pack(value: Any) -> Any:
    """Replace all tensors in nested containers by :class:`PackedTensor`."""
    if isinstance(value, Tensor):
        return PackedTensor(value)
    if isinstance(value, Mapping):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(pack(item) for item in value)
    return value


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if isinstance(value, PackedTensor):
        return value.tensor()
    if isinstance(value, Mapping):
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(unpack(item) for item in value)
    return value
