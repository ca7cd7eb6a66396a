"""Types and ranges in words, and the problem of a value that does not fit. Nothing here imports torch."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate

from altprop.config.project import config_files
from altprop.config.typed import as_typed, looks_like_a_value
from altprop.problems import Problem, nearest
from altprop.ranges import DESCRIPTIONS, LARGEST

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null", Path: "a path"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false values", str: "texts"}
SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def without_range(hint: Any) -> Any:
    """``hint`` without the range that ``Annotated`` adds to it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def choices_of(hint: Any) -> list[Any]:
    """The values of the ``Literal`` in ``hint``, or an empty list."""
    bare = [without_range(member) for member in members(hint)]
    return [choice for member in bare if get_origin(member) is Literal for choice in get_args(member)]


def readable(hint: Any, value: Any = None) -> str:
    """``hint`` in words, such as ``a whole number of at least 1, or null``.

    The bounds that are only there because every computer has limits are left out, unless ``value`` is beyond them.
    """
    alternatives = [member for member in members(hint) if getattr(member, "__module__", "") != "torch"]
    words = list(dict.fromkeys(_readable(member, value) for member in alternatives))
    if len(words) > 1 and any(re.search(r"\d|mapping", word) for word in words[:-1]):
        return f"{', '.join(words[:-1])}, or {words[-1]}"
    return " or ".join(words)


def with_article(noun: str) -> str:
    """``noun`` after ``a`` or ``an``."""
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def _readable(hint: Any, value: Any = None, names: Mapping[Any, str] = NAMES) -> str:
    if get_origin(hint) is Annotated:
        return _readable_range(hint, value, names)
    if hint in names:
        return names[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin in SEQUENCES:
        if origin is tuple and arguments and arguments[-1] is not ...:
            return f"a list of {len(arguments)}: {', '.join(readable(argument, value) for argument in arguments)}"
        return f"a list of {_plural(arguments[0], value)}" if arguments else "a list"
    if origin in MAPPINGS:
        return f"a mapping from {readable(arguments[0], value)} to {readable(arguments[1], value)}"
    if origin is collections.abc.Callable:
        return "a function"
    if dataclasses.is_dataclass(hint):
        return f"{{{', '.join(f'{field.name}: …' for field in dataclasses.fields(hint))}}}"
    return with_article(hint.__name__) if isinstance(hint, type) else str(hint)


def _plural(hint: Any, value: Any) -> str:
    if without_range(hint) in _PLURALS:
        return _readable(hint, value, _PLURALS)
    if len(members(hint)) > 1:
        return " or ".join(dict.fromkeys(_plural(member, value) for member in members(hint)))
    if get_origin(without_range(hint)) in SEQUENCES:
        return readable(hint, value).replace("a list", "lists", 1)
    return readable(hint, value)


def _readable_range(hint: Any, value: Any, names: Mapping[Any, str]) -> str:
    """A type with constraints of annotated-types in words."""
    noun, constraints = without_range(hint), constraints_of(hint)
    described = [DESCRIPTIONS.get(item.func) for item in constraints if isinstance(item, Predicate)]
    words = next(filter(None, described), _readable(noun, value, names))
    least = next((item.min_length for item in constraints if isinstance(item, MinLen)), None)
    if least is not None:
        exact = any(isinstance(item, MaxLen) and item.max_length == least for item in constraints)
        return words.replace("a list of", f"a list of {least}", 1) if exact else f"{words}, not empty"
    shown = [item for item in constraints if not _is_limit(item, value)]
    low = next((item.ge for item in shown if isinstance(item, Ge)), None)
    high = next((item.le for item in shown if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f"{words} from {low} to {high}"
    bounds = [f"of at least {item.ge}" if isinstance(item, Ge) else "" for item in shown]
    bounds += [f"above {item.gt}" if isinstance(item, Gt) else "" for item in shown]
    bounds += [f"below {item.lt}" if isinstance(item, Lt) else "" for item in shown]
    bounds += [f"at most {item.le}" if isinstance(item, Le) else "" for item in shown]
    return " ".join([words, " and ".join(filter(None, bounds))]).rstrip()


def _is_limit(constraint: Any, value: Any) -> bool:
    """Whether ``constraint`` is a limit of computers that no number in ``value`` exceeds."""
    bound: Any = getattr(constraint, "le", None) or getattr(constraint, "lt", None) or getattr(constraint, "ge", 0)
    return abs(bound) >= LARGEST and not _exceeds(value, abs(bound))


def _exceeds(value: Any, bound: float) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_exceeds(each, bound) for each in value)
    if isinstance(value, Mapping):
        return any(_exceeds(each, bound) for each in value.values())
    return isinstance(value, (int, float)) and abs(value) > bound


def constraints_of(hint: Any) -> tuple[Any, ...]:
    """The range that ``Annotated`` adds to ``hint``; empty if there is none."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def choice_meant(key: str, value: Any) -> Problem | None:
    """The problem of ``key=value`` if a choice was meant, whose key has slashes: ``algorithm/estimator=saturated_ste``."""
    group = key.replace(".", "/")
    if not isinstance(value, str) or not any(file.stem == value for file in config_files(group)):
        return None
    description = f"{value} is a choice of the group {group}, not a value"
    return Problem(key, description, "the path of a group has slashes, that of a value has dots", f"{group}={value}")


def _least(value: Any, hint: Any) -> Any:
    """The smallest whole number of ``hint`` if ``value`` is below it; None otherwise."""
    numbers = [member for member in members(hint) if without_range(member) in (int, float)]
    if len(numbers) != 1 or without_range(numbers[0]) is float or not isinstance(value, int):
        return None
    bounds: list[Any] = [item.ge for item in constraints_of(numbers[0]) if isinstance(item, Ge)]
    return bounds[0] if bounds and value < bounds[0] else None


_OFF = ("0", "no", "off", "none", "null", "n", "f", "")
"""What other programs write for false, in lower case."""


def wrong_type(key: str, value: Any, hint: Any) -> Problem:
    """The problem of a value that is not valid for the type ``hint``."""
    if (meant := choice_meant(key, value)) is not None:
        return meant
    choices = [str(choice) for choice in choices_of(hint)] or (["true", "false"] if members(hint) == (bool,) else [])
    near = nearest(str(value), choices)
    if members(hint) == (bool,) and not near:
        near = "false" if str(value).lower() in _OFF else "true"
    fix = f"{key}={near or '…'}" if near or value is None else ""
    allowed = f"it must be {readable(hint, value)}"
    if not fix and (least := _least(value, hint)) is not None:
        fix = f"{key}={least}"
    elif not fix and choices:
        fix = f"{key}={choices[0]}"
    if isinstance(value, str) and value.lower() in ("none", "nil", "") and NoneType in members(hint):
        fix = f"{key}=null"
    elif isinstance(value, str) and looks_like_a_value(value) and not near:
        allowed += " and this is text, as every variable of the environment is"
        fix = f"{key}={value}, or '{key}=\"${{oc.decode:${{oc.env:<variable>}}}}\"'"
    return Problem(key, f"{as_typed(value)} does not fit", allowed, fix)
