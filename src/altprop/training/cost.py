"""The cost of a run: floating-point operations of its training steps and peak memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from altprop.algorithms.base import Algorithm
from altprop.training.processes import sum_over_processes


class FlopCounter(TorchDispatchMode):
    """Counts ``flops`` of the matrix products, convolutions and attentions inside it, by torch's own formulas.

    A multiplication and an addition count as two. :class:`torch.utils.flop_counter.FlopCounterMode` counts the same, but it also
    hooks every module, and its hooks would stay in graphs that some algorithms keep from one step to the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def countable(algorithm: Algorithm) -> bool:
    """Whether a step of ``algorithm`` can be counted: it is not compiled and runs in this process."""
    return not algorithm.context.compile and algorithm.capabilities.in_process


class StepCosts:
    """Adds up the cost of training steps. Only one step of each kind is counted; it stands for the others of that kind.

    :attr:`altprop.algorithms.base.Algorithm.step_kind` names the kind of a step. Nothing is counted before :meth:`start`.
    """

    def __init__(self, world_size: int = 1) -> None:
        self.world_size = world_size
        self.known: dict[str, int] | None = None
        self.flops = 0
        """Floating-point operations since :meth:`start`."""

    def start(self, known: dict[str, int]) -> None:
        """Count from now on. ``known`` maps kinds to their operations, summed over all processes; it is updated in place."""
        self.known = known

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Count the work inside as work of ``kind``. Counting does not change the work."""
        if self.known is None:
            yield
            return
        if kind in self.known:
            yield
        else:
            with FlopCounter() as counter:
                yield
            total = sum_over_processes({"flops": counter.flops}, self.world_size)
            self.known[kind] = int(total["flops"])
        self.flops += self.known[kind]

    def step(self, algorithm: Algorithm, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Make a training step and count it. All processes of a run get mini-batches of one size and count the same steps."""
        kind = algorithm.step_kind
        if kind is None:
            return algorithm.train_step(inputs, targets)
        with self.of(f"{kind} on {targets.shape[0]}"):
            return algorithm.train_step(inputs, targets)


def watch_memory(device: torch.device) -> None:
    """Reset the peak memory of a CUDA ``device``, which earlier runs of this process may have set."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, Any]:
    """The peak memory so far: ``bytes``, and ``of`` what.

    On a CUDA ``device`` it counts tensors; elsewhere the resident set of the whole process since it started, including Python,
    libraries and data.
    """
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "tensors on the GPU"}
    return {"bytes": _peak_resident_bytes(), "of": "process"}


def _peak_resident_bytes() -> int:
    try:  # not getrusage, whose maximum is inherited from the parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
