"""Learning-rate schedules: torch's own classes, advanced per epoch or per step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from altprop.algorithms.context import Context

SchedulerFactory = Callable[..., LRScheduler]
TOTAL = "total"
"""Stands for the number of scheduler steps in the whole run, in epochs or steps, in the arguments of a scheduler."""


class Schedule:
    """How the learning rate changes over a run.

    With ``interval="epoch"``, 0-based epoch ``e`` trains with the rate after ``e`` advances. A milestone ``m`` of torch's
    ``MultiStepLR`` therefore acts from 0-based epoch ``m`` on, which is the start of 1-based epoch ``m + 1``.

    Args:
        scheduler: A class of ``torch.optim.lr_scheduler`` as a partial, or None for a constant rate. Arguments equal to
            ``"total"`` are replaced by the length of the run.
        interval: Whether the scheduler advances after every epoch or after every step. Raises ValueError for other values.
    """

    def __init__(self, *, scheduler: SchedulerFactory | None = None, interval: Literal["epoch", "step"] = "epoch") -> None:
        if interval not in ("epoch", "step"):
            raise ValueError(f"schedule.interval must be 'epoch' or 'step', not {interval!r}")
        self.scheduler = scheduler
        self.interval = interval

    def build(self, optimizer: torch.optim.Optimizer, context: Context) -> RunningSchedule:
        """Return the schedule bound to one optimizer."""
        if self.scheduler is None:
            return RunningSchedule(None, self.interval)
        total = context.total_epochs if self.interval == "epoch" else context.total_epochs * context.steps_per_epoch
        arguments = getattr(self.scheduler, "keywords", {})
        lengths = {name: total for name, value in arguments.items() if value == TOTAL}
        return RunningSchedule(self.scheduler(optimizer, **lengths), self.interval)


class RunningSchedule:
    """A schedule bound to one optimizer."""

    def __init__(self, scheduler: LRScheduler | None, interval: str) -> None:
        self.scheduler = scheduler
        self.interval = interval

    def step_end(self) -> None:
        """Advance a per-step schedule. Called after every optimizer step."""
        if self.scheduler is not None and self.interval == "step":
            self.scheduler.step()

    def epoch_end(self) -> None:
        """Advance a per-epoch schedule. Called after the last step of an epoch."""
        if self.scheduler is not None and self.interval == "epoch" and not isinstance(self.scheduler, ReduceLROnPlateau):
            with warnings.catch_warnings():
                # an epoch may end without an update: delayed gradients, skipped fp16 steps, a run resumed at its end
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
                self.scheduler.step()

    def evaluated(self, loss: float) -> None:
        """Pass the monitored loss to ``ReduceLROnPlateau``. Other schedules ignore it."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for an exact resume, as plain values."""
        if self.scheduler is None:
            return {}
        # torch's state may contain callables (functions of LambdaLR, methods of OneCycleLR); the config provides them again.
        return {key: value for key, value in self.scheduler.state_dict().items() if is_plain(value)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict({**self.scheduler.state_dict(), **state})


def is_plain(value: Any) -> bool:
    """Whether ``value`` consists only of containers, numbers, strings and tensors, so that it can be in a checkpoint."""
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))


def piecewise_constant(optimizer: torch.optim.Optimizer, values: Mapping[int, float] | Sequence[Sequence[float]]) -> LRScheduler:
    """Set the learning rate of every group to ``values[k]``, with ``k`` the last key up to the current epoch (or step).

    Rates are absolute, unlike in torch's multiplicative schedules; the optimizer's own ``lr`` is not used. ``values`` may also
    be ``[key, rate]`` pairs, because the command line can replace a list, while Hydra merges mappings.

    Raises ValueError if no rate is given for key 0.
    """
    pairs = values.items() if isinstance(values, Mapping) else values
    table = sorted((int(key), float(value)) for key, value in pairs)
    if not table or table[0][0] != 0:
        raise ValueError("schedule.scheduler.values must give the rate from 0 on")
    return _PiecewiseConstant(optimizer, table)


class _PiecewiseConstant(LRScheduler):
    def __init__(self, optimizer: torch.optim.Optimizer, table: list[tuple[int, float]]) -> None:
        self.table = table
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        rate = next(value for key, value in reversed(self.table) if key <= self.last_epoch)
        return [rate for _ in self.optimizer.param_groups]
