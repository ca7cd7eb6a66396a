"""Checks that several models share. They report a user's mistake in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from altprop.models.base import InputShape
from altprop.problems import ConfigError, Problem


def is_positive(value: object) -> bool:
    """Whether ``value`` is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def list_of_sizes(key: str, values: object, fix: str, words: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Yield a problem unless ``values`` is a list of positive whole numbers or ``words``."""
    listed = isinstance(values, Iterable) and not isinstance(values, str)
    if not listed or not all(is_positive(value) or value in words for value in values):  # type: ignore[attr-defined]
        description = str(list(values)) if listed else repr(values)  # type: ignore[call-overload]
        allowed = "a list of whole numbers above 0" + "".join(f" or '{word}'" for word in words)
        yield Problem(key, description, allowed, fix)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise :class:`ConfigError` with all ``problems`` if there are any."""
    problems = list(problems)
    if problems:
        raise ConfigError(problems)


def require_size(name: str, input_shape: InputShape, smallest: int, fix: str) -> None:
    """Raise ``ConfigError`` if images have a side below ``smallest`` pixels, the least that model ``name`` can pool."""
    _, height, width = input_shape
    if min(height, width) < smallest:
        description = f"images of {height} x {width} pixels"
        raise ConfigError([Problem("dataset", description, f"{name} needs at least {smallest} x {smallest}", fix)])
