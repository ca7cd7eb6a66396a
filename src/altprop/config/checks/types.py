"""Whether a configured value fits a type hint, and how to say what would."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import typing
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from altprop.config.checks.targets import members
from altprop.config.plain import UNRESOLVED

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null", Path: "a path"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false values", str: "texts"}
_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def fits(value: Any, hint: Any) -> bool:
    """Whether the plain ``value`` fits ``hint``, as strictly as JSON: lists fit tuples, whole numbers fit floats, nothing else.

    Hints that cannot be checked (tensors, protocols) fit everything.
    """
    if holds_unresolved(value) or _has_node(value):
        return True
    if dataclasses.is_dataclass(hint) and not isinstance(value, dict):
        return False  # also where pydantic cannot express one of its fields
    adapter = _adapter(hint)
    if adapter is None:
        return True
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    except (TypeError, ValueError):  # a value that JSON does not know
        return True
    return True


def choices_of(hint: Any) -> list[Any]:
    """The values of the ``Literal`` in ``hint``; empty where there is none."""
    return [choice for member in members(hint) if get_origin(member) is Literal for choice in get_args(member)]


def readable(hint: Any) -> str:
    """``hint`` in words: ``a whole number or null``."""
    return " or ".join(dict.fromkeys(_readable(member) for member in members(hint)))


def _readable(hint: Any) -> str:
    if hint in _NAMES:
        return _NAMES[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin in _SEQUENCES:
        if origin is tuple and arguments and arguments[-1] is not ...:
            return f"a list of {len(arguments)}: {', '.join(readable(argument) for argument in arguments)}"
        return f"a list of {_PLURALS.get(arguments[0], readable(arguments[0]))}" if arguments else "a list"
    if origin in (dict, collections.abc.Mapping):
        return f"a mapping from {readable(arguments[0])} to {readable(arguments[1])}"
    if origin is collections.abc.Callable:
        return "a function"
    if dataclasses.is_dataclass(hint):
        return f"{{{', '.join(f'{field.name}: …' for field in dataclasses.fields(hint))}}}"
    return f"a {hint.__name__}" if isinstance(hint, type) else str(hint)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(hint)
    except TypeError:  # a hint that has no hash
        return _new_adapter(hint)


@functools.cache
def _cached_adapter(hint: Any) -> TypeAdapter[Any] | None:
    return _new_adapter(hint)


def _new_adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(_eager(hint), config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # pydantic raises various errors for hints that it cannot express
        return None


def _eager(hint: Any) -> Any:
    """``hint`` with ``Iterable`` as ``list``, because pydantic checks iterables only when they are consumed."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is collections.abc.Iterable:
        return list[_eager(arguments[0])] if arguments else list  # type: ignore[misc]
    if len(members(hint)) > 1:
        return typing.Union[tuple(_eager(member) for member in members(hint))]  # noqa: UP007 - built from a tuple
    return hint


def _has_node(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_has_node(child) for child in value.values())
    return isinstance(value, list) and any(_has_node(child) for child in value)


def holds_unresolved(value: Any) -> bool:
    """Whether ``value``, or anything in it, is an interpolation that could not be resolved and is told as such."""
    if isinstance(value, dict):
        return any(holds_unresolved(child) for child in value.values())
    if isinstance(value, list):
        return any(holds_unresolved(child) for child in value)
    return value is UNRESOLVED
