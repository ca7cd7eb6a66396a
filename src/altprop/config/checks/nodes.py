"""Checks of one node with a ``_target_``: what it builds, and the names, completeness and types of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from altprop.config.checks.descriptions import members, readable, with_article, without_range, wrong_type
from altprop.config.checks.targets import Signature, Target, result_type, signature_of
from altprop.config.checks.types import argument_errors, is_open
from altprop.config.typed import as_typed
from altprop.names import public_path, renamed_problem
from altprop.problems import Problem, nearest

FORBIDDEN = ("_recursive_", "_args_", "_convert_")
"""Hydra's words that change how a node is built; altprop does not use them."""
RESERVED = ("_target_", "_partial_", *FORBIDDEN)


@dataclass(frozen=True)
class Place:
    """What a node at a known key must be.

    Args:
        base: The class that the node builds, or that its partial returns.
        partial: Whether the node is a partial, which altprop completes later.
        supplied: Arguments that altprop supplies by name.
        supplied_first: Whether altprop supplies the first argument by position, or the one called ``optimizer`` by name.
        placeholders: Words that may stand for any argument.
        nullable: Whether null is allowed instead of a node.
        own: Keys of the node that altprop itself uses, with their types; they are no arguments.
    """

    base: type | None = None
    partial: bool = False
    supplied: tuple[str, ...] = ()
    supplied_first: bool = False
    placeholders: tuple[str, ...] = ()
    nullable: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)


def check_node(
    key: str, node: Mapping[str, Any], target: Target, signature: Signature | None, place: Place | None
) -> Iterator[Problem]:
    """Every problem with what ``node`` builds and with its arguments; ``place`` is None for keys that altprop does not know."""
    for word in FORBIDDEN:
        if word in node:
            yield Problem(f"{key}.{word}", "is not used here", "nodes have _target_, _partial_ and arguments", f"~{key}.{word}")
    if not isinstance(node.get("_partial_", False), bool):
        allowed = "it must be true or false" if place is None else f"it must be {as_typed(place.partial)}"
        yield Problem(f"{key}._partial_", f"{as_typed(node['_partial_'])} does not fit", allowed)
        return
    misplaced = list(_check_place(key, node, target, place)) if place is not None else []
    yield from misplaced
    if signature is not None and place is not None and not misplaced:
        misplaced = list(_check_supplied(key, node, signature, place))
        yield from misplaced
    if signature is not None and not any(problem.key == f"{key}._target_" for problem in misplaced):
        yield from _check_arguments(key, node, signature, place)


def _check_supplied(key: str, node: Mapping[str, Any], signature: Signature, place: Place) -> Iterator[Problem]:
    """Check that the target takes what altprop supplies by name."""
    if signature.open_ended:
        return
    missing = [name for name in place.supplied if name not in signature.parameters]
    if missing:
        name = node["_target_"].rpartition(".")[2]
        allowed = f"a class or function that takes {' and '.join(place.supplied)}"
        yield Problem(f"{key}._target_", f"{name} takes no {' and no '.join(missing)}", allowed)


def _check_arguments(key: str, node: Mapping[str, Any], signature: Signature, place: Place | None) -> Iterator[Problem]:
    must_be_complete = place is not None or not node.get("_partial_", False)
    place = place or Place()
    supplied = {*place.supplied, *(_first(signature) if place.supplied_first else [])}
    arguments = {name: value for name, value in node.items() if name not in RESERVED and name not in place.own}
    for name, hint in place.own.items():
        if not is_open(node.get(name)) and not isinstance(node.get(name), hint):
            yield wrong_type(f"{key}.{name}", node[name], hint)
    for name in [name for name in arguments if name in supplied]:
        yield Problem(f"{key}.{name}", "is supplied by altprop", "it cannot be configured", f"~{key}.{name}")
        del arguments[name]
    class_name = node["_target_"].rpartition(".")[2]
    errors = argument_errors(signature, arguments)
    for name, error in sorted(errors.items(), key=lambda item: ("unknown", "missing", "type").index(item[1])):
        if error == "unknown":
            allowed = [name for name in signature.parameters if name not in supplied]
            yield _unknown_argument(key, name, arguments, allowed, node["_target_"])
        elif error == "missing" and must_be_complete and name not in supplied:
            hint = signature.parameters[name].annotation
            needed = "it" if hint is inspect.Parameter.empty else readable(hint)
            yield Problem(f"{key}.{name}", "is missing", f"{class_name} needs {needed}", f"+{key}.{name}=…")
        elif error == "type" and arguments[name] not in place.placeholders:
            yield wrong_type(f"{key}.{name}", arguments[name], signature.parameters[name].annotation)


def _first(signature: Signature) -> list[str]:
    return ["optimizer"] if "optimizer" in signature.parameters else list(signature.parameters)[:1]


def _check_place(key: str, node: Mapping[str, Any], target: Target, place: Place) -> Iterator[Problem]:
    if bool(node.get("_partial_", False)) != place.partial:
        if place.partial:
            yield Problem(f"{key}._partial_", "must be true", "altprop supplies the remaining arguments later")
        else:
            yield Problem(f"{key}._partial_", "must be false", "altprop supplies no further arguments")
    kind = result_type(target)
    if place.base is None or (kind is not None and issubclass(kind, place.base)):
        return
    path, base = node["_target_"], place.base
    description = f"{path} has no return type" if kind is None else f"{path} is not {with_article(base.__name__)}"
    allowed = f"a class derived from {public_path(base)}, or a function annotated as returning one"
    yield Problem(f"{key}._target_", description, allowed)


def _unknown_argument(key: str, name: str, arguments: Mapping[str, Any], allowed: list[str], path: str) -> Problem:
    if problem := renamed_problem(path, f"{key}.{name}", as_typed(arguments[name])):
        return problem
    near = nearest(name, [other for other in allowed if other not in arguments])
    fix = f"~{key}.{name}" + (f" +{key}.{near}={as_typed(arguments[name])}" if near else "")
    listed = f"its arguments: {', '.join(allowed)}" if allowed else "it has no arguments"
    return Problem(f"{key}.{name}", f"{path.rpartition('.')[2]} has no such argument", listed, fix)


def _check_calls(key: str, node: Mapping[str, Any], target: Target, hint: Any) -> Iterator[Problem]:
    calls = [get_args(member)[0] for member in members(hint) if get_origin(member) is Callable and get_args(member)]
    arguments = next((call for call in calls if isinstance(call, list)), None)
    if arguments is None:
        return
    if not node.get("_partial_", False):
        if not arguments and isinstance(target, type):
            yield Problem(f"{key}._partial_", "must be true", "altprop makes a new object for each use", f"+{key}._partial_=true")
        return
    signature = signature_of(target)
    for name in list(signature.parameters)[: len(arguments)] if signature is not None else ():
        if name in node:
            yield Problem(f"{key}.{name}", "is supplied by altprop", "it cannot be configured", f"~{key}.{name}")


def check_nested(key: str, node: Mapping[str, Any], target: Target, hint: Any) -> Iterator[Problem]:
    """Check that what a nested node builds fits ``hint``, the type of its parent's argument.

    If that is a function of some arguments, a partial leaves its first ones to the caller. An object that is called without any
    has to be made anew each time, so its node is a partial.
    """
    yield from _check_calls(key, node, target, hint)
    if node.get("_partial_", False) or hint is inspect.Parameter.empty:
        return
    kind, alternatives = result_type(target), [without_range(member) for member in members(hint)]
    classes = tuple(member for member in alternatives if isinstance(member, type))
    if kind is None or len(classes) != len(alternatives) or any(getattr(member, "_is_protocol", False) for member in classes):
        return
    if not issubclass(kind, classes) and not any(issubclass(member, kind) for member in classes):
        yield Problem(f"{key}._target_", f"{node['_target_']} does not fit", f"it must be {readable(hint)}")
