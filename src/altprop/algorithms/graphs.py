"""CUDA graphs: the device work of a training step is captured once for every shape of mini-batch and then replayed.

A replay launches all kernels of the step at once, without running its Python code. Small networks, whose kernels take less time
than their launches, gain most. What the step does on the host must therefore be the same in every step; what is not, such as
schedules, happens around the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from altprop.algorithms.context import Context
from altprop.algorithms.optimization import OptimizerStep
from altprop.algorithms.recorder import Recorder
from altprop.algorithms.schedule import RunningSchedule
from altprop.faults import chain, is_out_of_memory
from altprop.problems import ConfigError, Problem, RunFailed, message_of

KEY = "trainer.cuda_graph"
OFF = f"{KEY}=false"
WARM_UP = 3
"""Eager steps on mini-batches of one shape before its graph is captured. They are ordinary training steps."""

Update = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""The signature of :meth:`altprop.algorithms.base.Algorithm.update`."""


class GraphedUpdate:
    """Replaces ``update`` by graphs of it, one for every shape of mini-batch, with the same results bit for bit.

    A step is taken eagerly while its shape is new (:data:`WARM_UP`), and if something watches its operations or gradients, such
    as the count of operations and the alignment probe. If an optimizer's state was replaced, the graphs are captured again.

    Args:
        update: The algorithm's :meth:`~altprop.algorithms.base.Algorithm.update`.
        optimizers: All optimizer steps that it uses. Each updates its parameters once per call.
        recorder: Captures the graphs.
        context: The facts about the run.
    """

    def __init__(self, update: Update, optimizers: Sequence[OptimizerStep], recorder: Recorder, context: Context) -> None:
        self.update = update
        self.optimizers = list(optimizers)
        self.recorder = recorder
        self.context = context
        self.graphs: dict[Any, _Graph] = {}
        self._seen: dict[Any, int] = {}
        self._constants: Any = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Make one update and return its metrics, like ``update``."""
        if is_in_torch_dispatch_mode() or any(optimizer.is_observed for optimizer in self.optimizers):
            return self.update(inputs, targets)
        constants = [optimizer.constants() for optimizer in self.optimizers]
        if constants != self._constants:
            self.graphs.clear()
            self._seen.clear()
            self._constants = constants
        shape = (_layout(inputs), _layout(targets))
        if shape not in self.graphs:
            seen = self._seen[shape] = self._seen.get(shape, 0) + 1
            if seen <= WARM_UP:
                return self.recorder.warm_up(lambda: self.update(inputs, targets))
            self.graphs[shape] = self._captured(inputs, targets)
        for optimizer in self.optimizers:
            optimizer.refresh_rates()
        return self.graphs[shape](inputs, targets)

    def _captured(self, inputs: Tensor, targets: Tensor) -> _Graph:
        """Capture the update of mini-batches like this one. Raises :class:`RunFailed` if that is not possible."""
        generators = [generator for generator in self.context.generators.values() if generator.device.type != "cpu"]
        on_host = self._host_streams()
        try:
            with ExitStack() as stack:
                schedules: list[RunningSchedule] = []
                for optimizer in self.optimizers:
                    optimizer.refresh_rates()
                    stack.enter_context(optimizer.captured(schedules))
                graph = _Graph(self.update, inputs, targets, self.recorder, generators, schedules)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            first = list(chain(error))[-1]
            raise RunFailed(f"{KEY}: the step cannot be captured ({message_of(first)[:200]}); try {OFF}") from error
        if any(not torch.equal(before, after) for before, after in zip(on_host, self._host_streams(), strict=True)):
            raise RunFailed(f"{KEY}: the step draws random numbers on the CPU, which a graph cannot repeat; try {OFF}")
        return graph

    def _host_streams(self) -> list[Tensor]:
        """The states of the random generators on the CPU, if that is not the device of the run."""
        if self.context.device.type == "cpu":
            return []
        own = [generator.get_state() for generator in self.context.generators.values() if generator.device.type == "cpu"]
        return [torch.get_rng_state(), *own]


class _Graph:
    """The captured update of mini-batches of one shape, with memory of its own for them."""

    def __init__(
        self,
        update: Update,
        inputs: Tensor,
        targets: Tensor,
        recorder: Recorder,
        generators: Iterable[torch.Generator],
        schedules: list[RunningSchedule],
    ) -> None:
        self.inputs, self.targets = inputs.clone(), targets.clone()
        self.schedules = schedules
        """Schedules that the update wants to advance, which happens after every replay."""
        self.names: list[str] = []
        self.results: list[tuple[list[str], Tensor]] = []
        """Names of the metrics of one dtype, and the memory of their values ``[names]``."""

        def work() -> None:
            metrics = update(self.inputs, self.targets)
            self.names = list(metrics)
            self.results = _packed(metrics)

        self.replay = recorder.capture(work, generators)

    def __call__(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.replay()
        for schedule in self.schedules:
            schedule.step_end()
        metrics: dict[str, Tensor] = {}
        for names, values in self.results:
            metrics.update(zip(names, values.clone().unbind(), strict=True))  # a copy, since the next replay overwrites them
        return {name: metrics[name] for name in self.names}


def _packed(metrics: Mapping[str, Tensor]) -> list[tuple[list[str], Tensor]]:
    """The scalars ``metrics`` stacked by dtype, so that one copy is enough for all of a dtype."""
    names: dict[torch.dtype, list[str]] = {}
    for name, value in metrics.items():
        names.setdefault(value.dtype, []).append(name)
    return [(alike, torch.stack([metrics[name].detach().reshape(()) for name in alike])) for alike in names.values()]


def _layout(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype


def refuse_graphs(*, supported: bool, optimizers: Iterable[OptimizerStep], context: Context) -> None:
    """Raise ConfigError if steps cannot be captured. ``supported`` is what algorithm and weights rule say of themselves."""
    if not supported:
        raise ConfigError([Problem(KEY, "true is not supported by this algorithm or weights rule", "only false is", OFF)])
    if context.compile or context.precision == "fp16" or context.world_size > 1:
        description = "true with compilation, fp16 or several processes"
        raise ConfigError([Problem(KEY, description, "one process in fp32, tf32 or bf16 without trainer.compile", OFF)])
    if not all(optimizer.rates is not None for optimizer in optimizers):
        raise ConfigError([Problem("optimizer", "is not fused", f"{KEY}=true needs fused SGD, Adam or AdamW", OFF)])
