"""What a run costs: floating-point operations of its training steps, and the most memory it held."""

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

    A multiplication and an addition are two. :class:`torch.utils.flop_counter.FlopCounterMode` counts the same, but hooks every
    module besides, and its hooks would stay in the graphs that some algorithms keep from one step to the next.
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
    """Whether a step of ``algorithm`` can be counted: nothing of it is compiled or computed in processes of its own."""
    return not algorithm.context.compile and algorithm.capabilities.in_process


class StepCosts:
    """Adds up what steps cost without counting every one: one of each kind is counted and stands for the others of that kind.

    ``known`` holds the floating-point operations by kind, summed over the processes of the run; it is changed in place.
    :attr:`altprop.algorithms.base.Algorithm.step_kind` says of what kind a step is.
    """

    def __init__(self, algorithm: Algorithm, known: dict[str, int]) -> None:
        self.algorithm = algorithm
        self.known = known
        self.flops = 0
        """Of everything since this object was made."""
        algorithm.account = self.of

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Around work of ``kind``; it is the same work where it is counted."""
        if kind in self.known:
            yield
        else:
            with FlopCounter() as counter:
                yield
            total = sum_over_processes({"flops": counter.flops}, self.algorithm.context.world_size)
            self.known[kind] = int(total["flops"])
        self.flops += self.known[kind]

    def step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """A training step. The processes of a run get mini-batches of one size, so that all of them count the same steps."""
        kind = self.algorithm.step_kind
        if kind is None:
            return self.algorithm.train_step(inputs, targets)
        with self.of(f"{kind} on {targets.shape[0]}"):
            return self.algorithm.train_step(inputs, targets)


def watch_memory(device: torch.device) -> None:
    """Forget what earlier runs of this process held on a CUDA ``device``."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, Any]:
    """The most memory held so far: ``bytes``, and ``of`` what.

    That of tensors on a CUDA ``device``; elsewhere the resident set of this process, with Python, libraries and data, since the
    process began.
    """
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "tensors on the GPU"}
    return {"bytes": _peak_resident_bytes(), "of": "process"}


def _peak_resident_bytes() -> int:
    try:  # getrusage's maximum is inherited: a small program started by a large one reports the large one's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
