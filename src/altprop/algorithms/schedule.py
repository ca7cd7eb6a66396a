"""Learning-rate schedules: torch's own classes, advanced per epoch or per step."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from altprop.algorithms.context import Context
from altprop.ranges import LearningRate, NonNegativeFloat, PositiveInt, PositiveShare, Table

SchedulerFactory = Callable[..., LRScheduler]
_PARTS = "_schedulers"
"""Where SequentialLR and ChainedScheduler have the states of their parts."""
TOTAL = "total"
"""Stands for the number of scheduler steps in the whole run, in epochs or steps, in the arguments of a scheduler.

In the parts of torch's ``SequentialLR`` it stands for the number of steps of the part.
"""


class Schedule:
    """How the learning rate changes over a run.

    With ``interval="epoch"``, 0-based epoch ``e`` trains with the rate after ``e`` advances. A milestone ``m`` of torch's
    ``MultiStepLR`` therefore acts from 0-based epoch ``m`` on, which is the start of 1-based epoch ``m + 1``.

    Args:
        scheduler: A class of ``torch.optim.lr_scheduler`` as a partial, or None for a constant rate. Arguments equal to
            ``"total"`` are replaced by the length of the run. The argument ``schedulers`` of ``SequentialLR`` and
            ``ChainedScheduler`` is a list of such partials.
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
        return RunningSchedule(_build(self.scheduler, optimizer, total), self.interval)


def _build(factory: SchedulerFactory, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """The scheduler of ``factory``, with ``"total"`` replaced by ``total`` and its parts built, each for its own length."""
    configured: Mapping[str, Any] = getattr(factory, "keywords", {})
    arguments: dict[str, Any] = {name: total for name, value in configured.items() if isinstance(value, str) and value == TOTAL}
    if "schedulers" in configured:
        parts = list(configured["schedulers"])
        limits = [0, *configured.get("milestones", ()), total]
        lengths = [max(1, end - start) for start, end in pairwise(limits)] if "milestones" in configured else [total] * len(parts)
        if len(lengths) != len(parts):
            raise ValueError(f"{len(parts)} schedulers need {len(parts) - 1} milestones, not {len(lengths) - 1}")
        arguments["schedulers"] = [_build(part, optimizer, length) for part, length in zip(parts, lengths, strict=True)]
    if "optimizer" in inspect.signature(factory).parameters:
        return factory(optimizer=optimizer, **arguments)
    return factory(optimizer, **arguments)


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
        return _plain_state(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(_completed(state, self.scheduler.state_dict()))


def _plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` without callables (functions of LambdaLR, methods of OneCycleLR), which the configuration provides again."""
    plain = {key: value for key, value in state.items() if is_plain(value)}
    if _PARTS in state:
        plain[_PARTS] = [_plain_state(part) for part in state[_PARTS]]
    return plain


def _completed(state: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with everything that :func:`_plain_state` has left out, taken from ``current``."""
    merged = {**current, **state}
    if _PARTS in state:
        merged[_PARTS] = [_completed(part, own) for part, own in zip(state[_PARTS], current[_PARTS], strict=True)]
    return merged


def is_plain(value: Any) -> bool:
    """Whether ``value`` consists only of containers, numbers, strings and tensors, so that it can be in a checkpoint."""
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))


def piecewise_constant(optimizer: torch.optim.Optimizer, values: Table) -> LRScheduler:
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


def warmup_cosine(
    optimizer: torch.optim.Optimizer,
    *,
    warmup: NonNegativeFloat,
    total: PositiveInt,
    start_factor: PositiveShare = 0.01,
    eta_min: LearningRate = 0.0,
) -> LRScheduler:
    """Raise the rate linearly to the optimizer's own during ``warmup``, then lower it to ``eta_min`` along half a cosine.

    Args:
        optimizer: The optimizer, whose rate is the highest of the run.
        warmup: Length of the rise in scheduler steps (epochs or steps), or, below 1, as a share of ``total``. If it is not
            shorter than the run, the rate only rises.
        total: Length of the run in scheduler steps.
        start_factor: The first rate is ``start_factor`` times the optimizer's.
        eta_min: The last rate.

    Raises ValueError if ``warmup`` is negative.
    """
    if warmup < 0:
        raise ValueError(f"schedule.scheduler.warmup must not be negative, not {warmup}")
    rise = round(warmup * total) if warmup < 1 else round(warmup)
    if rise == 0:
        return CosineAnnealingLR(optimizer, T_max=max(1, total), eta_min=eta_min)
    parts = [
        LinearLR(optimizer, start_factor=start_factor, total_iters=rise),
        CosineAnnealingLR(optimizer, T_max=max(1, total - rise), eta_min=eta_min),
    ]
    return SequentialLR(optimizer, parts, milestones=[rise])
