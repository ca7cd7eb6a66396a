"""Compact storage of hard units' outputs for the backward pass.

The layer after a hard unit saves the unit's output, in floating point, until its own backward pass, although that output carries
only a few bits. Inside :func:`compact_hard_outputs` it is saved as one-byte integers instead, or not at all if the unit's
estimator saves the unit's input anyway. The backward pass recomputes the output bit for bit.
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
    """One output of a hard unit during the forward pass that computed it."""

    storage: StorageWeakRef
    """Tells whether the output is still alive; another tensor may reuse the memory of one that is not."""
    version: int
    numel: int
    levels: Levels
    inputs: Tensor | None
    codes: Tensor | None = None


@dataclass(frozen=True)
class _Packed:
    """A view of a whole hard output, which is recomputed from its unit's inputs or from its codes."""

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
    """Run a forward pass inside this context to save memory; the backward pass may run outside. Results are identical."""
    token = _outputs.set({})
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _outputs.reset(token)


def record(outputs: Tensor, inputs: Tensor | None, levels: Levels) -> None:
    """Record the ``outputs`` of a hard unit, and its ``inputs`` if its estimator saves them anyway."""
    if torch.compiler.is_compiling():  # the compiler decides what to save and what to recompute
        return
    recorded = _outputs.get()
    if recorded is not None:
        reference = StorageWeakRef(outputs.untyped_storage())
        detached = inputs.detach() if inputs is not None else None
        recorded[reference.cdata] = _HardOutput(reference, outputs._version, outputs.numel(), levels, detached)


def _pack(saved: Tensor) -> Tensor | _Packed:
    recorded = _outputs.get() or {}
    output = recorded.get(saved.untyped_storage()._cdata)
    if output is None or output.storage.expired():
        return saved
    if saved._version != output.version or saved.numel() != output.numel or saved.storage_offset() != 0:
        return saved
    if output.inputs is None and output.codes is None:
        codes = output.levels.encode(saved.detach())
        if codes.stride() != saved.stride():  # not a dense view: the codes do not have the memory order of the output
            return saved
        output.codes = codes
    return _Packed(output.levels, output.inputs, output.codes, saved.dtype, saved.size(), saved.stride())


def _unpack(packed: Tensor | _Packed) -> Tensor:
    return packed.unpack() if isinstance(packed, _Packed) else packed
