"""Peak memory of a training step, in bytes of tensors."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STEP = "the measured step"


def peak_bytes(make_step: Callable[[], Callable[[], object]], device: torch.device, warm_up: int = 1) -> int:
    """Return the peak memory of a step: parameters, gradients, optimizer state, buffers, graphs and temporaries.

    ``make_step`` builds everything and returns the step, which runs ``warm_up`` times before it is measured. On a CPU all
    allocations and releases from the start of ``make_step`` are summed; what existed before, such as the mini-batch, does not
    count. On CUDA the result is the allocator's own peak minus what was allocated before.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        step = make_step()
        for _ in range(warm_up):
            step()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()  # garbage released later would be subtracted without having been counted
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with _silence():
        profiler.start()
    try:
        step = make_step()
        for _ in range(warm_up):
            step()
        with record_function(STEP):
            step()
    finally:
        with _silence():
            profiler.stop()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events: list[Any] = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    names = [event.name() for event in events]
    totals = list(accumulate(event.nbytes() if name == "[memory]" else 0 for name, event in zip(names, events)))
    return max(totals[names.index(STEP) :])


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress standard error, where torch's profiler announces that it starts and stops."""
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


class LiveStorages:
    """Bytes of the live storages among those that were added, and their peak."""

    def __init__(self, ignored: set[int]) -> None:
        self.known: set[int] = set(ignored)
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes()
        self.now += size
        self.sizes[key] = size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def forget(self, tensor: Tensor) -> None:
        """Stop counting ``tensor``, although it is still alive."""
        key = tensor.untyped_storage()._cdata
        if key in self.sizes:
            self.now -= self.sizes.pop(key)

    def _drop(self, key: int) -> None:
        self.known.discard(key)
        self.now -= self.sizes.pop(key, 0)


class Allocations(TorchDispatchMode):
    """Adds every tensor that an operation returns to ``live``."""

    def __init__(self, live: LiveStorages) -> None:
        super().__init__()
        self.live = live

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.live.add(tensor)
        return result


def persistent(modules: list[nn.Module], optimizers: list[torch.optim.Optimizer]) -> set[int]:
    """Return the storages of parameters, buffers and optimizer state."""
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    values = [*(value for module in modules for value in module.state_dict().values()), *states]
    return {value.untyped_storage()._cdata for value in values if isinstance(value, Tensor)}


@contextmanager
def saved_for_backward(live: LiveStorages) -> Iterator[None]:
    """Count what graphs hold, from when it is saved until the graph releases it."""

    class Saved:
        """One saved tensor. It lives as long as the graph refers to it."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    counts: dict[int, int] = {}

    def release(key: int, size: int) -> None:
        counts[key] -= 1
        if not counts[key]:
            live.now -= size

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in live.known:
            if not counts.get(key):
                live.now += size
                live.peak = max(live.peak, live.now)
            counts[key] = counts.get(key, 0) + 1
            saved = Saved(tensor)
            weakref.finalize(saved, release, key, size)
            return saved
        return Saved(tensor)

    with saved_tensors_hooks(pack, lambda saved: saved.tensor):
        yield


@contextmanager
def without_updates(optimizers: list[torch.optim.Optimizer], live: LiveStorages) -> Iterator[None]:
    """Disable optimizer steps, and stop counting gradients of parameters once they are complete."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda parameter: live.forget(parameter.grad))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    steps = [optimizer.step for optimizer in optimizers]
    for optimizer in optimizers:
        optimizer.step = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    yield
    for optimizer, step in zip(optimizers, steps):
        optimizer.step = step  # type: ignore[method-assign]
    for hook in hooks:
        hook.remove()
