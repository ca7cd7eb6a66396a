"""What an algorithm is told about the run at set-up, and what it says of itself beforehand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch

from altprop.seeding import derive_seed

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Account = Callable[[str], AbstractContextManager[object]]
"""Takes the kind of a piece of work and returns a context manager that counts the cost of the work inside it."""


def uncounted(kind: str) -> AbstractContextManager[object]:
    """An :data:`Account` that counts nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Capabilities:
    """What an algorithm supports. Switching on what it does not support is refused before anything is built."""

    amp: bool = False
    """bf16 and fp16 autocast."""
    compile: bool = False
    """torch.compile of the forward pass."""
    ddp: bool = False
    """Data-parallel training: the same update on n processes as on one with the whole batch."""
    accumulate: bool = False
    """One mini-batch may be cut into slices whose gradients are added up."""
    clip: bool = False
    """Gradient clipping by norm."""
    probe: bool = True
    """The alignment probe: what a step updates goes through its :class:`OptimizerStep` objects, in this process."""
    in_process: bool = True
    """All of a step is computed in this process, so that its cost can be counted here."""
    weights_rules: bool = True
    """Any weights rule may be attached."""
    freezes: bool = False
    """Parts of the model are frozen before the run is over: no weights rule may be attached that changes weights by itself."""
    needs_blocks: bool = False
    """Only for models that expose ``blocks`` (:class:`altprop.models.base.FeedForward`)."""
    needs_energy: bool = False
    """Only for energy-based models."""
    needs_hard_units: bool = False
    """Only for models that have hard units."""
    native_hard_units: bool = False
    """Trains hard units without an estimator."""


@dataclass(frozen=True)
class Context:
    """Runtime facts handed to :meth:`Algorithm.setup`. ``total_epochs`` is the duration asked for, rounded up to epochs."""

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
    rank: int = 0
    world_size: int = 1
    account: Account = uncounted
    """``with context.account(kind):`` goes around each piece of work if :attr:`Algorithm.step_kind` is None."""
    generators: dict[str, torch.Generator] = field(default_factory=dict)

    def generator(self, name: str) -> torch.Generator:
        """The CPU generator called ``name``: seeded from the run's seed and its name, the same on every rank.

        Its state is part of every checkpoint. Asking twice returns the same generator.
        """
        if name not in self.generators:
            self.generators[name] = torch.Generator().manual_seed(derive_seed(self.seed, name))
        return self.generators[name]
