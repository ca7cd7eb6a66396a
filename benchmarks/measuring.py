"""What every benchmark shares: timing of sides in turn, ratios with quartiles, limits, and rows in one format.

A benchmark is a module with ``parser()`` (its command line), ``rows(args)`` (an iterator over its measurements), and the command
lines ``SUITE`` and ``QUICK`` with which ``run.py`` calls it. Run as a script, it goes through :func:`command_line.main`.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
"""``process`` counts the CPU time of this process, which other processes on a busy machine disturb less."""

CPU = torch.device("cpu")


def time_of_children() -> float:
    """Return the processor time, in seconds, of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Timer:
    """Measures seconds by ``clock``, including all work queued on ``device``."""

    clock: str = "process"
    device: torch.device = CPU

    def __call__(self, work: Callable[[], object]) -> float:
        now = CLOCKS[self.clock]
        self._wait()
        start = now()
        work()
        self._wait()
        return now() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int, timer: Timer, warm_up: int = 1) -> dict[str, list[float]]:
    """Return the seconds of every side in every round, without the first ``warm_up`` rounds.

    The sides take turns, and each round starts with the next side. This favors no side by running it after itself, with its
    weights still in the cache: of two sides both do, of three or more none does.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            duration = timer(sides[name])
            if number >= 0:
                seconds[name].append(duration)
    return seconds


def repeated(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


@dataclass(frozen=True)
class Limit:
    """A bound on a ratio and its reason, such as FLOPs, memory traffic, or a target."""

    value: float
    bound: Literal["at most", "at least"]
    reason: str

    def holds(self, ratio: float) -> bool:
        return ratio <= self.value if self.bound == "at most" else ratio >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.bound == 'at most' else '≥'} {number(self.value)}"


def at_most(value: float, reason: str) -> Limit:
    return Limit(value, "at most", reason)


def at_least(value: float, reason: str) -> Limit:
    return Limit(value, "at least", reason)


@dataclass(frozen=True)
class Row:
    """One ratio to one baseline, measured in the same run.

    ``quartiles`` are those of the ratios of single rounds; None if the quantity is counted, not timed. ``values`` are the
    absolute numbers behind the ratio, by name and unit. ``flops`` and ``memory`` are further ratios to the same baseline:
    floating-point operations and peak of tensor bytes.
    """

    what: str
    baseline: str
    ratio: float
    limit: Limit
    quartiles: tuple[float, float] | None = None
    rounds: int = 1
    measure: str = "time"
    values: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    memory: float | None = None
    memory_limit: Limit | None = None

    @property
    def met(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.limit.holds(self.ratio)

    @property
    def memory_met(self) -> bool:
        """Whether the memory is within its limit, if there is one."""
        return self.memory is None or self.memory_limit is None or self.memory_limit.holds(self.memory)


def paired(
    what: str,
    baseline: str,
    mine: Sequence[float],
    other: Sequence[float],
    limit: Limit,
    *,
    unit: str = "ms",
    scale: float = 1e3,
    **fields: Any,
) -> Row:
    """Return a row with the median of ``mine / other`` over rounds.

    If more is better (``limit`` is a lower bound), exchange the sides: the ratio is then a speed.

    Args:
        what: What is measured.
        baseline: What it is compared with.
        mine: Seconds of each round.
        other: Seconds of each round of the baseline.
        limit: The bound on the ratio.
        unit: Unit of the medians in ``values``.
        scale: Converts seconds to ``unit``.
        **fields: Further fields of :class:`Row`.
    """
    ratios = [one / two for one, two in zip(mine, other, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    faster = limit.bound == "at least"
    own, base = statistics.median(other if faster else mine), statistics.median(mine if faster else other)
    values = {unit: own * scale, f"{unit} of the baseline": base * scale, **fields.pop("values", {})}
    measure = fields.pop("measure", "speed" if faster else "time")
    return Row(what, baseline, statistics.median(ratios), limit, (low, high), len(ratios), measure, values, **fields)


def number(value: float) -> str:
    """Format ``value`` with as many digits as are significant in a ratio."""
    size = abs(value)
    if 0.9 <= size < 1.1:
        return f"{value:.3f}".removesuffix("0")
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.1e}"
