"""Check values against the type hints of a signature, and describe hints in words."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, ValidationError, create_model

from altprop.config.checks.descriptions import MAPPINGS, NAMES, SEQUENCES, constraints_of, members, without_range
from altprop.config.checks.targets import Signature
from altprop.config.plain import UNRESOLVED
from altprop.ranges import LARGEST_FLOAT

Error = Literal["unknown", "missing", "type"]

_CONFIG = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def argument_errors(signature: Signature, values: Mapping[str, Any], *, nodes: bool = True) -> dict[str, Error]:
    """The arguments for which the plain ``values`` do not satisfy ``signature``, each with the kind of its error.

    Types are as strict as in JSON: a list is valid for a tuple and a whole number for a float, but nothing is converted. NaN,
    infinity and numbers that torch cannot hold are valid only for a hint that allows them (``AllowInfNan`` of pydantic). Any
    other value is valid for a hint that pydantic cannot express, and for every hint if it is unresolved or, with ``nodes``, if it
    holds a node.
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
            elif not (is_open if nodes else is_unresolved)(values[name]):
                errors[name] = "type"
    for name, value in values.items():
        hint = signature.parameters[name].annotation if name in signature.parameters else inspect.Parameter.empty
        if name not in errors and isinstance(value, Mapping) and "_target_" in value and not takes_nodes(hint):
            errors[name] = "type"
        if name not in errors and not is_open(value) and _holds_no_number(value) and not _allows_infinity(signature, name):
            errors[name] = "type"
    return errors


def _holds_no_number(value: Any) -> bool:
    """Whether ``value`` is or contains NaN, infinity or a number that torch cannot hold."""
    if isinstance(value, Mapping):
        return any(_holds_no_number(part) for item in value.items() for part in item)
    if isinstance(value, (list, tuple)):
        return any(map(_holds_no_number, value))
    if isinstance(value, float):
        return not abs(value) <= LARGEST_FLOAT
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def takes_nodes(hint: Any) -> bool:
    """Whether a node may be a value of ``hint``, which is not so for numbers, texts, and lists and mappings of them."""
    bare = [without_range(member) for member in members(hint)]
    return not all(member in NAMES or get_origin(member) in (Literal, *SEQUENCES, *MAPPINGS) for member in bare)


def _allows_infinity(signature: Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    members_ = () if parameter is None else members(parameter.annotation)
    return any(isinstance(item, AllowInfNan) and item.allow_inf_nan for hint in members_ for item in constraints_of(hint))


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
