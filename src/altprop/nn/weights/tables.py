"""Piecewise-constant values over epochs, as data: ``[[0, 100], [25, 200]]``.

A configuration holds pairs instead of a mapping because Hydra merges mappings, so that a table could neither be replaced nor
extended from the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from altprop.problems import Problem
from altprop.ranges import Table


def as_table(values: Table) -> dict[int, float]:
    """Return ``values`` as a mapping from epochs to values."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return {int(epoch): value for epoch, value in pairs}


def at_epoch(values: Mapping[int, float], epoch: int) -> float:
    """Return the value of the last key that is not after the 0-based ``epoch``. Raises ``ValueError`` if there is none."""
    keys = [key for key in values if key <= epoch]
    if not keys:
        raise ValueError(f"no value for epoch {epoch}: the first key is {min(values, default=None)}, it must be 0")
    return values[max(keys)]


def table_problems(key: str, values: object, *, whole: bool = False, least: float = 0.0) -> Iterator[Problem]:
    """Yield a problem unless ``values`` are a table that begins with epoch 0, with numbers of at least ``least``.

    With ``whole`` the numbers must be integers.
    """
    if not _is_table(values, (int,) if whole else (int, float), least):
        kind = "whole numbers" if whole else "numbers"
        allowed = f"[epoch, value] pairs that begin with epoch 0, the values {kind} of at least {least:g}"
        yield Problem(key, str(values), allowed, f"{key}=[[0,100],[25,200]]")


def _is_table(values: object, kinds: tuple[type, ...], least: float) -> bool:
    if not isinstance(values, Sequence) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in values):
        return False
    epochs = [pair[0] for pair in values]
    numbers = [pair[1] for pair in values]
    epochs_valid = all(isinstance(epoch, int) and epoch >= 0 for epoch in epochs)
    # type() and not isinstance(), because True is an int in Python
    numbers_valid = all(type(number) in kinds and float(number) >= least for number in numbers)
    return epochs_valid and numbers_valid and 0 in epochs


def epoch_of(value: int | str, total_epochs: int) -> int:
    """Return the 0-based epoch that ``value`` names: a number, or a share of the run such as ``75%``, rounded to whole epochs.

    Raises ``ValueError`` if it is neither.
    """
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", value)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{value} is neither an epoch nor a share of the run such as 75%")
    return round(float(match[1]) / 100 * total_epochs)
