"""The progress of a run: what a checkpoint holds in addition to the algorithm's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """Position and bookkeeping of a run, as plain values."""

    step: int = 0
    """Finished steps over all epochs."""
    epoch: int = 0
    """0-based epoch of the next step."""
    step_in_epoch: int = 0
    """Finished steps in that epoch."""
    train_seconds: float = 0.0
    """Seconds spent in training steps, without evaluation, logging and saving, over all interruptions."""
    seconds: float = 0.0
    """Seconds since the start, over all interruptions."""
    flops: int | None = None
    """Floating-point operations of all training steps so far; None if they were not counted from the first step."""
    flops_by_kind: dict[str, int] = field(default_factory=dict)
    """Floating-point operations of one step (or part of a step) in this epoch, by kind; see :class:`.cost.StepCosts`."""
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
    records: int = 0
    """Number of records logged after the first step; 0 in checkpoints of earlier versions."""
    meter: dict[str, Any] = field(default_factory=dict)
    """State of the running means."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Restore what :meth:`state_dict` returned. Fields of other versions that no longer exist are ignored.

        Raises ValueError if a value has a wrong type.
        """
        values = {each.name: state[each.name] for each in fields(cls) if each.name in state}
        for name, default in cls().state_dict().items():
            kinds = (int, float) if isinstance(default, float) else type(default)
            if name in values and default is not None and not isinstance(values[name], kinds):
                raise ValueError(f"progress.{name} is {values[name]!r}")
        return cls(**values)
