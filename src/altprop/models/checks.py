"""Checks that several models share; what they find is a user's mistake, said in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from altprop.models.base import InputShape
from altprop.problems import ConfigError, Problem


def is_positive(value: object) -> bool:
    """Whether ``value`` is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def list_of_sizes(key: str, values: object, fix: str, words: tuple[str, ...] = ()) -> Iterator[Problem]:
    """The problem of ``values`` that are not a list of positive whole numbers, or of one of ``words``."""
    listed = isinstance(values, Iterable) and not isinstance(values, str)
    if not listed or not all(is_positive(value) or value in words for value in values):  # type: ignore[attr-defined]
        description = str(list(values)) if listed else repr(values)  # type: ignore[call-overload]
        allowed = "a list of whole numbers above 0" + "".join(f" or '{word}'" for word in words)
        yield Problem(key, description, allowed, fix)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise :class:`ConfigError` with ``problems`` where there are any."""
    found = list(problems)
    if found:
        raise ConfigError(found)


def require_size(name: str, input_shape: InputShape, smallest: int, fix: str) -> None:
    """Refuse images with a side shorter than ``smallest`` pixels, below which model ``name`` has nothing left to pool.

    Raises ``ConfigError``.
    """
    _, height, width = input_shape
    if min(height, width) < smallest:
        given = f"images of {height} x {width} pixels"
        raise ConfigError([Problem("dataset", given, f"{name} needs at least {smallest} x {smallest}", fix)])
