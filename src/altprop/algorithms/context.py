"""What an algorithm supports, and the facts about a run that it gets at set-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch

from altprop.algorithms.recorder import Recorder
from altprop.nn.metrics.base import Metric
from altprop.seeding import derive_seed

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]
ON_DEVICE = "@device"
"""End of the name of a generator on the run's device, if that is not a CPU."""
Account = Callable[[str], AbstractContextManager[object]]
"""Takes the kind of a piece of work and returns a context manager that counts the cost of the work inside it."""


def uncounted(kind: str) -> AbstractContextManager[object]:
    """An :data:`Account` that counts nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Capabilities:
    """The features that an algorithm supports. A configuration that uses others is refused before anything is built."""

    amp: bool = False
    """bf16 and fp16 autocast."""
    compile: bool = False
    """``torch.compile`` of the forward pass."""
    ddp: bool = False
    """Data-parallel training: n processes make the same update as one process with the whole batch."""
    accumulate: bool = False
    """A mini-batch may be split into slices whose gradients are added up."""
    clip: bool = False
    """Gradient clipping by norm."""
    cuda_graph: bool = False
    """The whole update may be captured in a CUDA graph: it does the same on the host in every step, and never waits for the
    device. The base class runs what happens before and after it."""
    probe: bool = True
    """The alignment probe. It requires that all updates go through :class:`OptimizerStep` objects in this process."""
    in_process: bool = True
    """The whole step is computed in this process, so its cost can be counted here."""
    weights_rules: bool = True
    """Any weights rule may be attached."""
    freezes: bool = False
    """Parts of the model are frozen during the run. Weights rules that change weights on their own are refused."""
    needs_blocks: bool = False
    """Requires a model with ``blocks`` (:class:`altprop.models.base.FeedForward`)."""
    needs_energy: bool = False
    """Requires an energy-based model."""
    needs_hard_units: bool = False
    """Requires a model with hard units."""
    native_hard_units: bool = False
    """Trains hard units without an estimator."""


@dataclass(frozen=True)
class Context:
    """Facts about a run that :meth:`Algorithm.setup` gets. ``total_epochs`` is the length of the run, rounded up to epochs."""

    steps_per_epoch: int
    total_epochs: int
    device: torch.device
    seed: int
    input_shape: tuple[int, int, int]
    num_classes: int
    batch_size: int
    precision: Precision = "fp32"
    clip_norm: float | None = None
    accumulate: int = 1
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = False
    recorder: Recorder | None = None
    """Captures steps in CUDA graphs; None: steps are taken eagerly."""
    rank: int = 0
    world_size: int = 1
    account: Account = uncounted
    """``with context.account(kind):`` goes around each piece of work if :attr:`Algorithm.step_kind` is None."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """The run's own metrics by name."""
    generators: dict[str, torch.Generator] = field(default_factory=dict)

    def generator(self, name: str) -> torch.Generator:
        """Return the CPU generator called ``name``, seeded from the run's seed and the name, the same on every rank.

        Its state is part of every checkpoint. Later calls return the same generator.
        """
        if name not in self.generators:
            device = self.device if name.endswith(ON_DEVICE) else "cpu"
            self.generators[name] = torch.Generator(device).manual_seed(derive_seed(self.seed, name))
        return self.generators[name]

    def device_generator(self, name: str) -> torch.Generator:
        """Return a generator like :meth:`generator`, but on the run's device, where drawing does not make the device wait.

        On a CPU it is ``generator(name)`` itself. Elsewhere it has a name of its own, because its draws are others.
        """
        return self.generator(name if self.device.type == "cpu" else name + ON_DEVICE)
