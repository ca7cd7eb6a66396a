"""Cost of decoupled greedy learning beside end-to-end backprop: time of a step, memory for activations, evaluation of all heads.

    OMP_NUM_THREADS=1 python benchmarks/decoupled_greedy.py [--batch 32] [--rounds 9] [--head mlp_sr] [--json result.json]

Both sides train the 6-layer CIFAR network (width 128) with SGD on the same noise, one layer per block; the end-to-end side is
written out here. Rounds alternate, ratios are formed round by round and their median is the result. Activations are counted in
two ways: bytes that graphs hold for the backward pass, at their peak; and the peak of everything that forward and backward
passes allocate, temporaries included, beyond parameters and their gradients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from altprop.algorithms.context import Context
from altprop.algorithms.decoupled_greedy import DecoupledGreedy
from altprop.algorithms.schedule import Schedule
from altprop.models.greedy_cnn import GreedyCNN
from altprop.nn import local_heads

SHAPE, CLASSES = (3, 32, 32), 10
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)


def make_model(device: torch.device, width: int) -> GreedyCNN:
    torch.manual_seed(0)
    return GreedyCNN(depth=6, width=width, units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES).to(device)


class EndToEnd:
    """A hand-written step of backprop that tracks loss and accuracy."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = SGD(model.parameters())

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        scores = self.model(inputs)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizer.step()
        self.seen = (loss.detach(), (scores.argmax(1) == targets).float().mean())


class LiveStorages:
    """Bytes of the storages alive among those reported, and their peak."""

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
        """Count ``tensor`` no longer, though it lives on."""
        key = tensor.untyped_storage()._cdata
        if key in self.sizes:
            self.now -= self.sizes.pop(key)

    def _drop(self, key: int) -> None:
        self.known.discard(key)
        self.now -= self.sizes.pop(key, 0)


class Allocations(TorchDispatchMode):
    """Reports every tensor that an operation returns."""

    def __init__(self, live: LiveStorages) -> None:
        super().__init__()
        self.live = live

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.live.add(tensor)
        return result


def persistent(*modules: nn.Module) -> set[int]:
    """Storages of parameters and buffers."""
    return {tensor.untyped_storage()._cdata for module in modules for tensor in module.state_dict().values()}


@contextmanager
def held_for_backward(live: LiveStorages) -> Iterator[None]:
    """Counts what graphs hold, from when it is saved until the graph lets go of it."""

    class Held:
        """One saved tensor; its life is that of the graph's reference."""

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
            held = Held(tensor)
            weakref.finalize(held, release, key, size)
            return held
        return Held(tensor)

    with saved_tensors_hooks(pack, lambda held: held.tensor):
        yield


@contextmanager
def without_updates(optimizers: list[torch.optim.Optimizer], live: LiveStorages) -> Iterator[None]:
    """No optimizer steps, and gradients of parameters do not count once they are there."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda parameter: live.forget(parameter.grad))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    steps = [optimizer.step for optimizer in optimizers]
    for optimizer in optimizers:
        optimizer.step = lambda *_, **__: None  # type: ignore[method-assign]
    yield
    for optimizer, step in zip(optimizers, steps):
        optimizer.step = step  # type: ignore[method-assign]
    for hook in hooks:
        hook.remove()


CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
"""``process`` counts the CPU time of this process, which other processes on a busy machine disturb less."""


def timed(action: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of ``action``."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = clock()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def ratio(
    mine: Callable[[], object], other: Callable[[], object], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, float]:
    """Medians of both and of their ratio, round by round, in alternating order; the first round is a warm-up."""
    pairs = []
    for number in range(rounds + 1):
        if number % 2:
            first, second = timed(mine, device, clock), timed(other, device, clock)
        else:
            second, first = timed(other, device, clock), timed(mine, device, clock)
        pairs.append((first, second))
    pairs = pairs[1:]
    return {
        "seconds": statistics.median(first for first, _ in pairs),
        "baseline_seconds": statistics.median(second for _, second in pairs),
        "ratio": statistics.median(first / second for first, second in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--head", choices=["mlp_sr", "mlp", "cnn"], default="mlp_sr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device, clock = torch.device(given.device), CLOCKS[given.clock]
    inputs = torch.randn(given.batch, *SHAPE, device=device)
    targets = torch.randint(CLASSES, (given.batch,), device=device)

    end_to_end = EndToEnd(make_model(device, given.width))
    algorithm = DecoupledGreedy(head=getattr(local_heads, f"{given.head}_head"))
    context = Context(
        steps_per_epoch=100,
        total_epochs=1,
        device=device,
        seed=0,
        input_shape=SHAPE,
        num_classes=CLASSES,
        batch_size=given.batch,
    )
    algorithm.setup(make_model(device, given.width), SGD, Schedule(), context)
    algorithm.epoch_start(0)
    sides = {"decoupled_greedy": partial(algorithm.train_step, inputs, targets), "backprop": partial(end_to_end, inputs, targets)}
    result: dict[str, Any] = {"step": ratio(sides["decoupled_greedy"], sides["backprop"], given.rounds, device, clock)}

    kept = {
        "decoupled_greedy": (persistent(algorithm.model, algorithm.local_heads), [o.optimizer for o in algorithm.optimizers]),
        "backprop": (persistent(end_to_end.model), [end_to_end.optimizer]),
    }
    held, allocated = {}, {}
    for name, step in sides.items():
        ignored, optimizers = kept[name]
        ignored = ignored | {
            value.untyped_storage()._cdata
            for optimizer in optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        }
        ignored |= {inputs.untyped_storage()._cdata, targets.untyped_storage()._cdata}
        live = LiveStorages(ignored)
        with held_for_backward(live):
            step()
        held[name] = live.peak
        live = LiveStorages(ignored)
        with without_updates(optimizers, live), Allocations(live):
            step()
        allocated[name] = live.peak
    result["held_for_backward"] = {**held, "ratio": held["decoupled_greedy"] / held["backprop"]}
    result["allocated_peak"] = {**allocated, "ratio": allocated["decoupled_greedy"] / allocated["backprop"]}

    with algorithm.inference():
        evaluation = (partial(algorithm.predictions, inputs), partial(algorithm.predict, inputs))
        result["evaluation_of_all_heads"] = ratio(*evaluation, given.rounds, device, clock)
    for name, values in result.items():
        print(name, json.dumps(values))
    if given.json:
        settings = {"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(given), "json": None}
        given.json.write_text(json.dumps({**result, "settings": settings}, indent=2) + "\n")


if __name__ == "__main__":
    main()
