"""Capturing device work in CUDA graphs, as a small interface, so that tests can do without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch

R = TypeVar("R")


class Recorder(Protocol):
    """Captures the device work of functions."""

    def warm_up(self, work: Callable[[], R]) -> R:
        """Run ``work`` as an ordinary function, where :meth:`capture` will run it."""

    def capture(self, work: Callable[[], None], generators: Iterable[torch.Generator]) -> Callable[[], None]:
        """Run the host code of ``work`` once and return a function that does its device work.

        ``generators`` are those on the device that ``work`` may draw from, besides torch's own; every replay draws anew.
        """


class CudaRecorder:
    """Captures on a side stream of a CUDA ``device``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], R]) -> R:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = work()
        current.wait_stream(self.stream)
        return result

    def capture(self, work: Callable[[], None], generators: Iterable[torch.Generator]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Threads that load data may allocate memory in the meantime, which the mode "global" would refuse.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
