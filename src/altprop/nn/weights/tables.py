"""Piecewise-constant values over epochs, as data: ``{0: 100, 25: 200}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from altprop.problems import Problem

Number = TypeVar("Number", int, float)


def at_epoch(values: Mapping[int, Number], epoch: int) -> Number:
    """The value of the last key not after the 0-based ``epoch``. Raises ``ValueError`` where there is none."""
    keys = [key for key in values if key <= epoch]
    if not keys:
        raise ValueError(f"no value for epoch {epoch}: the first key is {min(values, default=None)}, it must be 0")
    return values[max(keys)]


def table_problems(key: str, values: object, *, whole: bool = False, least: float = 0.0) -> Iterator[Problem]:
    """The problem of ``values`` that are not a table from epoch 0 on with numbers of at least ``least``."""
    allowed = f"a table from epochs to {'whole numbers' if whole else 'numbers'} of at least {least:g}, with epoch 0 in it"
    kinds = (int,) if whole else (int, float)
    good = (
        isinstance(values, Mapping)
        and 0 in values
        and all(isinstance(epoch, int) and epoch >= 0 for epoch in values)
        and all(isinstance(value, kinds) and not isinstance(value, bool) and value >= least for value in values.values())
    )
    if not good:
        yield Problem(key, repr(dict(values) if isinstance(values, Mapping) else values), allowed, f"'{key}={{0: 100}}'")
