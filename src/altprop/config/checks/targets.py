"""Find the class or function that a ``_target_`` names, and its arguments."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import importlib
import inspect
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from hydra.errors import HydraException
from hydra.utils import get_object

from altprop._torchvision import import_torchvision
from altprop.config.checks.torch_arguments import ranges_of
from altprop.names import public_name
from altprop.problems import Problem, message_of, nearest

Target = Callable[..., Any]
EXTRAS = {"torchmetrics": "metrics"}
"""Optional package -> the extra of altprop that installs it."""


@dataclass(frozen=True, eq=False)
class Signature:
    """The arguments of a target.

    Args:
        parameters: Arguments by name. Annotations are resolved; ``inspect.Parameter.empty`` if there is none or it cannot be
            resolved.
        open_ended: Whether the target takes further keyword arguments that its signature does not name.
    """

    parameters: dict[str, inspect.Parameter]
    open_ended: bool


def locate(path: str) -> Target | None:
    """The class or function at the dotted ``path``; None if nothing callable is there or Hydra refuses it."""
    if path.startswith("torchmetrics."):  # it imports torchvision if that is installed
        with contextlib.suppress(ModuleNotFoundError):
            import_torchvision()
    try:
        target = get_object(public_name(path))
    except (ImportError, ValueError, AttributeError, HydraException, SystemExit):  # a user's module may exit when it is imported
        return None
    return target if callable(target) else None


def unknown_target(key: str, path: str) -> Problem:
    """The problem of a target that :func:`locate` does not find.

    If a module on the path exists but raises an exception when it is imported, this is the exception with its file and line.
    Otherwise the problem names the part of the path that does exist.
    """
    key, parts = f"{key}._target_", path.split(".")
    allowed = "the dotted path of a class or function"
    module, found = None, 0
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        try:
            module, found = importlib.import_module(name), length
        except BaseException as error:  # importing a user's module may raise anything
            if isinstance(error, KeyboardInterrupt):
                raise
            if not _is_absent(error, name):
                return Problem(key, f"{path}: importing {name} failed: {_where(error)}", "a module that can be imported")
            break
    if module is None:
        fix = f"pip install 'altprop[{EXTRAS[parts[0]]}]'" if parts[0] in EXTRAS else ""
        return Problem(key, f"{path}: there is no module {parts[0]}", allowed, fix)
    prefix, missing, rest = ".".join(parts[:found]), parts[found] if found < len(parts) else "", parts[found + 1 :]
    if not missing or hasattr(module, missing):
        return Problem(key, f"{path} is not a class or function that a configuration may call", allowed)
    near = nearest(missing, [name for name in dir(module) if not name.startswith("_")])
    if near and not inspect.ismodule(getattr(module, near, None)):
        rest = []  # what was meant is the class itself
    fix = f"{key}={'.'.join([prefix, near, *rest])}" if near else ""
    return Problem(key, f"{path} does not exist: {prefix} has no module, class or function {missing}", allowed, fix)


def _is_absent(error: BaseException, module: str) -> bool:
    """Whether ``error`` says that ``module`` itself does not exist, and not a module that it imports."""
    if not all(module.split(".")):
        return True
    return isinstance(error, ModuleNotFoundError) and error.name == module


def _where(error: BaseException) -> str:
    """``error`` on one line, with the file and line that raised it: the last one that is not part of an installed package."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
    frames = [frame for frame in frames if frame.filename != __file__ and frame.filename != importlib.__file__]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {message_of(error)}{place}"


@functools.cache
def signature_of(target: Target) -> Signature | None:
    """The signature of ``target``, or None if it is unknown.

    The signature of a class whose ``__init__`` passes ``**kwargs`` on includes the arguments of its bases.
    ``**options: Unpack[<TypedDict>]`` stands for the keys of the dictionary and nothing else. Arguments of torch's classes have
    the ranges of :mod:`altprop.config.checks.torch_arguments`.
    """
    signature = _own_signature(target)
    ranges = ranges_of(target) if signature is not None else {}
    if signature is None or not ranges:
        return signature
    parameters = {name: item.replace(annotation=ranges.get(name, item.annotation)) for name, item in signature.parameters.items()}
    return Signature(parameters, signature.open_ended)


def _own_signature(target: Target) -> Signature | None:
    if not isinstance(target, type):
        return _signature(target)
    parameters: dict[str, inspect.Parameter] = {}
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        own = Signature({}, False) if owner is object else _signature(vars(owner)["__init__"], _field_hints(owner), method=True)
        if own is None:
            return None
        parameters = {**own.parameters, **parameters}
        if not own.open_ended:
            return Signature(parameters, open_ended=False)
    return Signature(parameters, open_ended=True)


@functools.cache
def defaults_of(target: Target) -> dict[str, Any]:
    """The plain default values of the arguments of ``target``, with lists for tuples."""
    owners = (
        [vars(owner)["__init__"] for owner in target.__mro__ if "__init__" in vars(owner)]
        if isinstance(target, type)
        else [target]
    )
    defaults: dict[str, Any] = {}
    for owner in owners:
        with contextlib.suppress(ValueError, TypeError):
            for name, item in inspect.signature(owner).parameters.items():
                if item.default is None or isinstance(item.default, (bool, int, float, str, tuple)):
                    defaults.setdefault(name, list(item.default) if isinstance(item.default, tuple) else item.default)
    return defaults


def accepts(path: str, name: str) -> bool:
    """Whether the target at ``path`` has an argument ``name``."""
    target = locate(path)
    signature = signature_of(target) if target is not None else None
    return signature is not None and name in signature.parameters


def result_type(target: Target) -> type | None:
    """The class of what ``target`` returns: the class itself, or the annotation of a function; None if it is unknown."""
    if isinstance(target, type):
        return target
    hint = _hints(target).get("return")
    return hint if isinstance(hint, type) else None


def _field_hints(owner: type) -> dict[str, Any] | None:
    """Resolved hints of a dataclass: its generated ``__init__`` may name types that only the modules of its bases import."""
    if not dataclasses.is_dataclass(owner):
        return None
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:  # evaluating an annotation may raise anything
        return None


def _signature(function: Callable[..., Any], hints: dict[str, Any] | None = None, *, method: bool = False) -> Signature | None:
    try:
        parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    except (ValueError, TypeError):
        return None
    hints = _hints(function) if hints is None else hints
    named = {
        item.name: item.replace(annotation=hints.get(item.name, item.empty))
        for item in parameters
        if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    }
    options = next((item.name for item in parameters if item.kind is item.VAR_KEYWORD), None)
    if options is not None and get_origin(hints.get(options)) is typing.Unpack:
        return Signature(named | _unpacked(hints[options]), open_ended=False)
    return Signature(named, open_ended=options is not None)


def _unpacked(hint: Any) -> dict[str, inspect.Parameter]:
    """The arguments that ``**options: Unpack[<TypedDict>]`` stands for."""
    (keys,) = get_args(hint)
    keyword, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return {
        name: inspect.Parameter(
            name, keyword, annotation=_key_type(hint), default=required if name in keys.__required_keys__ else None
        )
        for name, hint in typing.get_type_hints(keys, include_extras=True).items()
    }


def _key_type(hint: Any) -> Any:
    """``hint`` without ``Required`` and ``NotRequired``."""
    return get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations, without those that cannot be resolved.

    Abstract collections resolve even if the module imports them for type checkers only.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # evaluating an annotation may raise anything
        pass
    hints = {}
    names = {**vars(collections.abc), **getattr(function, "__globals__", {})}
    for name, hint in getattr(function, "__annotations__", {}).items():
        try:
            hints[name] = eval(hint, names) if isinstance(hint, str) else hint
        except Exception:
            continue
    return hints
