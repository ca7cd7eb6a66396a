"""Finding what a ``_target_`` names and what it takes."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from hydra.errors import HydraException
from hydra.utils import get_object

from altprop.names import public_name
from altprop.problems import Problem, nearest

Target = Callable[..., Any]


@dataclass(frozen=True)
class Parameter:
    """One argument of a target. ``hint`` is its resolved annotation, ``inspect.Parameter.empty`` where there is none."""

    name: str
    required: bool
    hint: Any


@dataclass(frozen=True)
class Signature:
    """The arguments of a target. ``open_ended``: further keyword arguments go who knows where."""

    parameters: dict[str, Parameter]
    open_ended: bool


def locate(path: str) -> Target | None:
    """The class or function at the dotted ``path``; None where there is none, it is no callable, or Hydra refuses it."""
    try:
        found = get_object(public_name(path))
    except (ImportError, ValueError, AttributeError, HydraException):
        return None
    return found if callable(found) else None


def unknown_target(key: str, path: str) -> Problem:
    """The problem of a target that :func:`locate` does not find: how far the path goes and what lies there."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:length])
        try:
            module = importlib.import_module(prefix)
        except Exception:  # whatever the import of a user's module raises
            continue
        near = nearest(parts[length], [name for name in dir(module) if not name.startswith("_")])
        fix = ".".join([prefix, near, *parts[length + 1 :]]) if near else ""
        given = f"{path} does not exist: {prefix} has no class or function {parts[length]}"
        if hasattr(module, parts[length]):
            given = f"{path} is not a class or function that may be called from a configuration"
        return Problem(f"{key}._target_", given, "the dotted path of a class or function", fix and f"{key}._target_={fix}")
    return Problem(f"{key}._target_", f"{path}: there is no module {parts[0]}", "the dotted path of a class or function")


@functools.cache
def signature_of(target: Target) -> Signature | None:
    """What ``target`` takes; for a class whose ``__init__`` passes ``**kwargs`` on, with its bases' arguments.

    ``**options: Unpack[<TypedDict>]`` stands for the keys of the dictionary and nothing else. None: unknown.
    """
    if not isinstance(target, type):
        return _signature(target, skip_self=False)
    parameters: dict[str, Parameter] = {}
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        own = (
            Signature({}, False) if owner is object else _signature(vars(owner)["__init__"], _field_hints(owner), skip_self=True)
        )
        if own is None:
            return None
        parameters = {**own.parameters, **parameters}
        if not own.open_ended:
            return Signature(parameters, open_ended=False)
    return Signature(parameters, open_ended=True)


def accepts(path: str, name: str) -> bool:
    """Whether the target at ``path`` has an argument ``name``."""
    target = locate(path)
    signature = signature_of(target) if target is not None else None
    return signature is not None and name in signature.parameters


def result_type(target: Target) -> type | None:
    """The class of what calling ``target`` returns: itself, or a function's return annotation; None where that is not said."""
    if isinstance(target, type):
        return target
    hint = _hints(target).get("return")
    return hint if isinstance(hint, type) else None


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _field_hints(owner: type) -> dict[str, Any] | None:
    """Resolved hints of a dataclass, whose generated ``__init__`` names types that only the modules of its bases may know."""
    if not dataclasses.is_dataclass(owner):
        return None
    try:
        return typing.get_type_hints(owner)
    except Exception:  # an annotation may raise anything when it is evaluated
        return None


def _signature(function: Callable[..., Any], known_hints: dict[str, Any] | None = None, *, skip_self: bool) -> Signature | None:
    try:
        raw = list(inspect.signature(function).parameters.values())[1 if skip_self else 0 :]
    except (ValueError, TypeError):
        return None
    hints = _hints(function) if known_hints is None else known_hints
    named = [item for item in raw if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    unknown = inspect.Parameter.empty
    parameters = {item.name: Parameter(item.name, item.default is unknown, hints.get(item.name, unknown)) for item in named}
    options = next((item.name for item in raw if item.kind is item.VAR_KEYWORD), None)
    if options is not None and get_origin(hints.get(options)) is typing.Unpack:
        return Signature(parameters | _unpacked(hints[options]), open_ended=False)
    return Signature(parameters, open_ended=options is not None)


def _unpacked(hint: Any) -> dict[str, Parameter]:
    """The arguments that ``**options: Unpack[<TypedDict>]`` stands for."""
    (keys,) = get_args(hint)
    hints = typing.get_type_hints(keys)
    return {name: Parameter(name, name in keys.__required_keys__, hint) for name, hint in hints.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations; those that cannot be resolved are left out.

    What modules like to import for type checkers only, the abstract collections, is known.
    """
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation may raise anything when it is evaluated
        pass
    found = {}
    names = {**vars(collections.abc), **getattr(function, "__globals__", {})}
    for name, hint in getattr(function, "__annotations__", {}).items():
        try:
            found[name] = eval(hint, names) if isinstance(hint, str) else hint
        except Exception:
            continue
    return found
