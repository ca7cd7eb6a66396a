"""Dotted keys of the values in a configuration of plain containers. This module imports nothing from altprop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """``value`` and everything inside it, each with its key: ``model``, ``model.units``, ``model.hidden[0]``."""
    yield key, value
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from walk(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from walk(child, f"{key}[{index}]")


def is_within(key: str, others: Iterable[str]) -> bool:
    """Whether ``key`` is one of ``others`` or is inside one of them."""
    return any(key == other or key.startswith((f"{other}.", f"{other}[")) for other in others)
