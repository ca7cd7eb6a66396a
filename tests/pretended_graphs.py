"""A pretended CUDA graph on the CPU: a tape of torch's operations, which are repeated on the same memory without the Python code.

As in a real graph, a replay reads and writes the memory that the captured step used, numbers of Python are those of the capture,
and reading a value on the host is refused during a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

R = TypeVar("R")
READS = ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero")
"""Operations that make the host wait for the device."""


class PretendedRecorder:
    """A :class:`altprop.algorithms.recorder.Recorder`. It counts what happens: ``warm_ups``, ``captures`` and ``replays``."""

    def __init__(self) -> None:
        self.warm_ups = self.captures = self.replays = 0

    def warm_up(self, work: Callable[[], R]) -> R:
        self.warm_ups += 1
        return work()

    def capture(self, work: Callable[[], None], generators: Iterable[torch.Generator]) -> Callable[[], None]:
        """Unlike a real capture this one has executed the operations already, so the first replay has nothing left to do."""
        self.captures += 1
        tape = _Tape()
        with tape:
            work()
        executed = True

        def replay() -> None:
            nonlocal executed
            self.replays += 1
            if not executed:
                tape.replay()
            executed = False

        return replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        results = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, before in self.calls:
            after = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(after), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)
