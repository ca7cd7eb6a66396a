"""Piecewise-constant values over epochs, as data: ``[[0, 100], [25, 200]]``.

Pairs and not a mapping in the configuration, because Hydra merges mappings: one could neither replace a table nor add to it from
the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from altprop.problems import Problem

Table = Mapping[int, float] | Sequence[Sequence[float]]
"""Values from 0-based epochs on: a mapping, or ``[epoch, value]`` pairs in any order."""


def as_table(values: Table) -> dict[int, float]:
    """``values`` as a mapping from epochs to values."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return {int(epoch): value for epoch, value in pairs}


def at_epoch(values: Mapping[int, float], epoch: int) -> float:
    """The value of the last key not after the 0-based ``epoch``. Raises ``ValueError`` where there is none."""
    keys = [key for key in values if key <= epoch]
    if not keys:
        raise ValueError(f"no value for epoch {epoch}: the first key is {min(values, default=None)}, it must be 0")
    return values[max(keys)]


def table_problems(key: str, values: object, *, whole: bool = False, least: float = 0.0) -> Iterator[Problem]:
    """The problem of ``values`` that are not a table from epoch 0 on with numbers of at least ``least``."""
    if not _is_table(values, (int,) if whole else (int, float), least):
        kind = "whole numbers" if whole else "numbers"
        allowed = f"[epoch, value] pairs that begin with epoch 0, the values {kind} of at least {least:g}"
        yield Problem(key, str(values), allowed, f"{key}=[[0,100],[25,200]]")


def _is_table(values: object, kinds: tuple[type, ...], least: float) -> bool:
    if not isinstance(values, Sequence) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in values):
        return False
    epochs = [pair[0] for pair in values]
    numbers = [pair[1] for pair in values]
    whole_epochs = all(isinstance(epoch, int) and epoch >= 0 for epoch in epochs)
    # type and not isinstance: true is an int to Python
    good = all(type(number) in kinds and float(number) >= least for number in numbers)
    return whole_epochs and good and 0 in epochs
