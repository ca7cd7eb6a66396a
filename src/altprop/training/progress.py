"""How far a run has come: what, beside the algorithm, a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """Position and bookkeeping of a run; plain values only."""

    step: int = 0
    """Finished steps over all epochs."""
    epoch: int = 0
    """0-based epoch that the next step belongs to."""
    step_in_epoch: int = 0
    """Finished steps of that epoch."""
    train_seconds: float = 0.0
    """Time spent in training steps, without evaluation, logging and saving; over all interruptions."""
    seconds: float = 0.0
    """Time since the start, over all interruptions."""
    flops: int | None = None
    """Floating-point operations of all training steps so far; None where they are not counted from the first step on."""
    flops_by_kind: dict[str, int] = field(default_factory=dict)
    """Those of one step of this epoch, or of one piece of a step, by kind; see :class:`altprop.training.cost.StepCosts`."""
    best: dict[str, float] = field(default_factory=dict)
    """The record of the best evaluation so far; empty before the first."""
    stale: int = 0
    """Evaluations since the monitored metric improved (early stopping)."""
    stopped_early: bool = False
    """Whether early stopping has ended the run."""
    monitored: float | None = None
    """Best value of the monitored metric."""
    last: dict[str, float] = field(default_factory=dict)
    """The newest record."""
    meter: dict[str, Any] = field(default_factory=dict)
    """State of the running means."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """What :meth:`state_dict` returned, or an earlier version's, of which only what there still is counts."""
        return cls(**{each.name: state[each.name] for each in fields(cls) if each.name in state})
