"""Keeping hard outputs for the backward pass in a fraction of their memory.

The layer behind a hard unit keeps the unit's output, in floating point, until its own backward pass. That output holds a few
bits: inside :func:`compact_hard_outputs` it is kept as whole numbers of one byte instead, or not at all where the unit's
estimator keeps the unit's input anyway, and is made again, bit for bit, when the backward pass asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from altprop.nn.units.levels import Levels


@dataclass
class _HardOutput:
    """What is known of one output while its forward pass runs."""

    storage: StorageWeakRef
    """Guards against another tensor that takes over the memory of an output no longer alive."""
    version: int
    numel: int
    levels: Levels
    inputs: Tensor | None
    codes: Tensor | None = None


@dataclass(frozen=True)
class _Packed:
    """A view of the whole of a hard output, to be made again from its unit's inputs or from its codes."""

    levels: Levels
    inputs: Tensor | None
    codes: Tensor | None
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]

    def unpack(self) -> Tensor:
        if self.inputs is not None:
            outputs = self.levels.quantize(self.inputs)
        else:
            assert self.codes is not None
            outputs = self.levels.decode(self.codes, self.dtype)
        return outputs.as_strided(self.size, self.stride)


_outputs: ContextVar[dict[int, _HardOutput] | None] = ContextVar("hard outputs of the running forward pass", default=None)


@contextmanager
def compact_hard_outputs() -> Iterator[None]:
    """Run a forward pass inside this context; its backward pass may follow outside. Results do not change, memory does."""
    token = _outputs.set({})
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _outputs.reset(token)


def record(outputs: Tensor, inputs: Tensor | None, levels: Levels) -> None:
    """Called by a hard unit with its ``outputs``, and with its ``inputs`` where its estimator keeps them anyway."""
    if torch.compiler.is_compiling():  # the compiler decides itself what is kept and what is computed again
        return
    known = _outputs.get()
    if known is not None:
        reference = StorageWeakRef(outputs.untyped_storage())
        kept = inputs.detach() if inputs is not None else None
        known[reference.cdata] = _HardOutput(reference, outputs._version, outputs.numel(), levels, kept)


def _pack(saved: Tensor) -> Tensor | _Packed:
    known = _outputs.get() or {}
    output = known.get(saved.untyped_storage()._cdata)
    if output is None or output.storage.expired():
        return saved
    if saved._version != output.version or saved.numel() != output.numel or saved.storage_offset() != 0:
        return saved
    if output.inputs is None and output.codes is None:
        codes = output.levels.encode(saved.detach())
        if codes.stride() != saved.stride():  # not a dense view, so the codes are not in the memory order of the output
            return saved
        output.codes = codes
    return _Packed(output.levels, output.inputs, output.codes, saved.dtype, saved.size(), saved.stride())


def _unpack(packed: Tensor | _Packed) -> Tensor:
    return packed.unpack() if isinstance(packed, _Packed) else packed
