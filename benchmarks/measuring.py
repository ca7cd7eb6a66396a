"""What every benchmark shares: sides that take turns, ratios with their quartiles, and rows of one form.

A benchmark is a module with ``parser()`` (its command line), ``rows(given)`` (its measurements, one by one), and the command
lines ``SUITE`` and ``QUICK`` that ``run.py`` hands it. Run by itself it goes through :func:`main`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
"""``process`` counts the CPU time of this process, which other processes on a busy machine disturb less."""

CPU = torch.device("cpu")


class Benchmark(Protocol):
    """A module of this folder."""

    __name__: str
    SUITE: str
    QUICK: str

    def parser(self) -> argparse.ArgumentParser: ...

    def rows(self, given: argparse.Namespace) -> Iterator[Row]: ...


@dataclass(frozen=True)
class Timer:
    """Seconds by ``clock``, with everything that was queued on ``device`` done."""

    clock: str = "process"
    device: torch.device = CPU

    def __call__(self, work: Callable[[], object]) -> float:
        now = CLOCKS[self.clock]
        self._wait()
        started = now()
        work()
        self._wait()
        return now() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int, timer: Timer, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every side in every round, after ``warm_up`` rounds that are dropped.

    The sides take turns, each round beginning with the next of them. None is favored by coming after itself, with its weights
    still in the cache: of two sides both do, of more none does.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken = timer(sides[name])
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def repeated(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


@dataclass(frozen=True)
class Limit:
    """What a ratio is held against, and why that: FLOPs, memory traffic, a target that was set."""

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
    """One ratio against one baseline, measured in the same run.

    ``quartiles`` are of the ratios of single rounds; None for what is counted. ``values`` are the absolute numbers behind it, by
    name and unit. ``flops`` and ``memory`` are further ratios against the same baseline: floating-point operations, peak of
    tensor bytes.
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
    def held(self) -> bool:
        return self.limit.holds(self.ratio)

    @property
    def memory_held(self) -> bool:
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
    **more: Any,
) -> Row:
    """The median of ``mine / other``, round by round. Both in seconds; ``values`` gets their medians times ``scale``.

    Where more is better (``limit`` is a least value), call it with the sides exchanged: the ratio is then a speed.
    """
    ratios = [one / two for one, two in zip(mine, other, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    faster = limit.bound == "at least"
    own, base = statistics.median(other if faster else mine), statistics.median(mine if faster else other)
    values = {unit: own * scale, f"{unit} of the baseline": base * scale, **more.pop("values", {})}
    measure = more.pop("measure", "speed" if faster else "time")
    return Row(what, baseline, statistics.median(ratios), limit, (low, high), len(ratios), measure, values, **more)


def number(value: float) -> str:
    """``value`` with as many digits as a ratio deserves."""
    size = abs(value)
    if 0.9 <= size < 1.1:
        return f"{value:.3f}".removesuffix("0")
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.1e}"


def standard_parser(doc: str | None, rounds: int, clock: str = "process") -> argparse.ArgumentParser:
    """A command line with ``--rounds``, ``--clock`` and ``--json``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default=clock, help=f"default {clock}")
    parser.add_argument("--json", type=Path)
    return parser


def main(parser: argparse.ArgumentParser, rows: Callable[[argparse.Namespace], Iterator[Row]]) -> None:
    """Measure, show every row when it is there and all of them at the end, and write ``--json``."""
    from reporting import Section, aligned, line, machine, write_json  # not needed by those who only measure

    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for row in rows(given):
        print(line(row), file=sys.stderr, flush=True)
        found.append(row)
    name = Path(sys.argv[0]).stem
    section = Section(name, " ".join(sys.argv[1:]), machine(given.clock, getattr(given, "device", "cpu")), tuple(found))
    print(aligned([section]))
    if given.json:
        write_json([section], given.json)
