"""Checks of one node with a ``_target_``: that it exists, and that its arguments exist, are complete and have the right types."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from altprop.config.checks.targets import Signature, Target, members, result_type
from altprop.config.checks.types import choices_of, fits, readable
from altprop.config.plain import UNRESOLVED
from altprop.names import renamed_problem
from altprop.problems import Problem, nearest

RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
FORBIDDEN = ("_recursive_", "_args_", "_convert_")
"""Hydra's own words that change how a node is built; altprop has no use for them."""


@dataclass(frozen=True)
class Place:
    """What stands at a known key: what it must be, and what altprop hands to it later."""

    base: type | None = None
    """The class that it is, or that a partial of it returns."""
    partial: bool = False
    supplied: tuple[str, ...] = ()
    """Arguments that altprop gives by name."""
    supplied_first: bool = False
    """altprop gives the first argument by position."""
    placeholder: Any = None
    """A word that may stand for any argument."""
    nullable: bool = False


def check_node(
    key: str, node: Mapping[str, Any], target: Target, signature: Signature | None, place: Place | None
) -> Iterator[Problem]:
    """Every problem of the arguments that ``node`` gives to ``target``; ``place`` is None at keys that altprop does not know."""
    for word in FORBIDDEN:
        if word in node:
            yield Problem(f"{key}.{word}", "is not used here", "nodes have _target_, _partial_ and arguments", f"~{key}.{word}")
    partial = node.get("_partial_", False)
    misplaced = list(_check_place(key, node, target, place)) if place is not None else []
    yield from misplaced
    if signature is None or any(problem.key == f"{key}._target_" for problem in misplaced):
        return  # its arguments are those of something else
    given = {name: value for name, value in node.items() if name not in RESERVED}
    supplied = set(place.supplied) if place is not None else set()
    if place is not None and place.supplied_first and signature.parameters:
        supplied.add(next(iter(signature.parameters)))
    name_of_target = node["_target_"].rpartition(".")[2]
    yield from _check_names(key, given, signature, supplied, node["_target_"])
    if place is not None or not partial:
        yield from _check_missing(key, given, signature, supplied, name_of_target)
    yield from check_types(key, given, signature, place.placeholder if place is not None else None)


def _check_place(key: str, node: Mapping[str, Any], target: Target, place: Place) -> Iterator[Problem]:
    if bool(node.get("_partial_", False)) != place.partial:
        wanted = "true" if place.partial else "false"
        yield Problem(
            f"{key}._partial_", f"must be {wanted}", "altprop completes it later" if place.partial else "it is built as it stands"
        )
    kind = result_type(target)
    if place.base is None or (kind is not None and issubclass(kind, place.base)):
        return
    name = place.base.__name__
    given = f"{node['_target_']} is no {name}" if kind is not None else f"{node['_target_']} does not say what it returns"
    wanted = f"a class derived from {place.base.__module__}.{place.base.__qualname__}, or a function annotated as returning one"
    yield Problem(f"{key}._target_", given, wanted)


def _check_names(key: str, given: Mapping[str, Any], signature: Signature, supplied: set[str], path: str) -> Iterator[Problem]:
    target = path.rpartition(".")[2]
    allowed = [name for name in signature.parameters if name not in supplied]
    for name in given:
        if name in supplied:
            yield Problem(f"{key}.{name}", "is given by altprop itself", "it cannot be configured", f"~{key}.{name}")
        elif name not in signature.parameters and not signature.open_ended:
            near = nearest(name, [other for other in allowed if other not in given])
            listed = f"its arguments: {', '.join(allowed)}" if allowed else "it has no arguments"
            fix = f"~{key}.{name}" + (f" {'' if near in given else '+'}{key}.{near}={shown(given[name])}" if near else "")
            renamed = renamed_problem(path, f"{key}.{name}", shown(given[name]))
            yield renamed or Problem(f"{key}.{name}", f"{target} has no such argument", listed, fix)


def _check_missing(
    key: str, given: Mapping[str, Any], signature: Signature, supplied: set[str], target: str
) -> Iterator[Problem]:
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in given and name not in supplied:
            hint = "" if parameter.hint is inspect.Parameter.empty else f": {readable(parameter.hint)}"
            yield Problem(f"{key}.{name}", f"is missing, {target} needs it", f"it must be given{hint}", f"+{key}.{name}=…")


def check_types(key: str, given: Mapping[str, Any], signature: Signature, placeholder: Any = None) -> Iterator[Problem]:
    """Every value of ``given`` that does not fit its parameter's type hint."""
    for name, value in given.items():
        parameter = signature.parameters.get(name)
        if parameter is None or parameter.hint is inspect.Parameter.empty or (placeholder is not None and value == placeholder):
            continue
        if isinstance(value, dict) and "_target_" in value:
            continue  # what a nested node builds is checked there
        if fits(value, parameter.hint):
            continue
        choices = choices_of(parameter.hint)
        near = nearest(str(value), [str(choice) for choice in choices])
        fix = f"{key}.{name}={near or '…'}" if near or value is None else ""
        yield Problem(f"{key}.{name}", f"{shown(value)} does not fit", f"it must be {readable(parameter.hint)}", fix)


def check_nested(key: str, node: Mapping[str, Any], target: Target, hint: Any) -> Iterator[Problem]:
    """Whether what a nested node builds can be what its parent's parameter, of type ``hint``, takes."""
    if node.get("_partial_", False) or hint is inspect.Parameter.empty:
        return
    kind, wanted = result_type(target), members(hint)
    classes = tuple(member for member in wanted if isinstance(member, type))
    if kind is None or len(classes) != len(wanted) or any(getattr(member, "_is_protocol", False) for member in classes):
        return
    if not issubclass(kind, classes) and not any(issubclass(member, kind) for member in classes):
        yield Problem(f"{key}._target_", f"{node['_target_']} does not fit", f"it must be {readable(hint)}")


def shown(value: Any) -> str:
    """``value`` as on the command line."""
    if value is UNRESOLVED:
        return "…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{shown(child)}" for name, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(shown(child) for child in value) + "]"
    return str(value)
