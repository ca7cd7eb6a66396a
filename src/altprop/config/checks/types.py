"""Check values against the type hints of a signature, and describe hints in words."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from altprop.config.checks.targets import Signature, members
from altprop.config.plain import UNRESOLVED

Error = Literal["unknown", "missing", "type"]

_CONFIG = ConfigDict(arbitrary_types_allowed=True)
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null", Path: "a path"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false values", str: "texts"}
_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def argument_errors(signature: Signature, values: Mapping[str, Any]) -> dict[str, Error]:
    """The arguments for which the plain ``values`` do not satisfy ``signature``, each with the kind of its error.

    Types are as strict as in JSON: a list is valid for a tuple and a whole number for a float, but nothing is converted.
    Any value is valid for a hint that pydantic cannot express, and for every hint if it holds a node or is unresolved.
    """
    errors: dict[str, Error] = {}
    try:
        _model(signature).model_validate_json(json.dumps(values, default=str, skipkeys=True), strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            name, *inner = (str(part) for part in detail["loc"])
            if detail["type"] == "extra_forbidden" and not inner:
                errors[name] = "unknown"
            elif name not in values:
                errors[name] = "missing"
            elif not is_open(values[name]):
                errors[name] = "type"
    return errors


def is_open(value: Any) -> bool:
    """Whether the final value is not known yet: ``value`` is or contains a node or something unresolved."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(is_open, value.values()))
    return any(map(is_open, value)) if isinstance(value, list) else value is UNRESOLVED


def is_unresolved(value: Any) -> bool:
    """Whether ``value`` is or contains something that could not be resolved."""
    if isinstance(value, dict):
        return any(map(is_unresolved, value.values()))
    return any(map(is_unresolved, value)) if isinstance(value, list) else value is UNRESOLVED


def choices_of(hint: Any) -> list[Any]:
    """The values of the ``Literal`` in ``hint``, or an empty list."""
    return [choice for member in members(hint) if get_origin(member) is Literal for choice in get_args(member)]


def readable(hint: Any) -> str:
    """``hint`` in words, such as ``a whole number or null``."""
    return " or ".join(dict.fromkeys(_readable(member) for member in members(hint)))


def with_article(noun: str) -> str:
    """``noun`` after ``a`` or ``an``."""
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


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
    return with_article(hint.__name__) if isinstance(hint, type) else str(hint)


@functools.cache
def _model(signature: Signature) -> type[BaseModel]:
    """A pydantic model with one field for each argument."""
    fields: dict[str, Any] = {
        # Aliases may have any name; a field must not be called "copy" or "_name".
        f"argument_{name}": (_checkable(item.annotation), Field(... if item.default is item.empty else None, alias=name))
        for name, item in signature.parameters.items()
    }
    return create_model(
        "Arguments", __config__=ConfigDict(**_CONFIG, extra="allow" if signature.open_ended else "forbid"), **fields
    )


def _checkable(hint: Any) -> Any:
    """``hint``, or something wider if there is none or pydantic cannot express it."""
    if hint is inspect.Parameter.empty:
        return Any
    hint = _eager(hint)
    try:
        create_model("Argument", __config__=_CONFIG, value=(hint, ...))
    except Exception:  # pydantic raises various errors
        return dict if dataclasses.is_dataclass(hint) else Any
    return hint


def _eager(hint: Any) -> Any:
    """``hint`` with ``Iterable`` as ``list``, because pydantic checks an iterable only when it is consumed."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is collections.abc.Iterable:
        return list[_eager(arguments[0])] if arguments else list  # type: ignore[misc]
    if len(members(hint)) > 1:
        return typing.Union[tuple(_eager(member) for member in members(hint))]  # noqa: UP007 - built from a tuple
    return hint
