"""Convert a composed configuration to plain containers and report every value that cannot be resolved."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.names import with_public_names
from altprop.problems import Problem, nearest


class _Unresolved:
    def __repr__(self) -> str:
        return "…"


NO_VALUE = "has no value"
"""How the problem of a value that is missing (``???``) is described."""
UNRESOLVED = _Unresolved()
"""Marks a value that could not be resolved; checks ignore it."""


def to_plain(config: DictConfig) -> tuple[dict[str, Any], list[Problem]]:
    """``config`` as dicts, lists and scalars with all interpolations resolved, and the problems of those that cannot be."""
    problems: list[Problem] = []
    try:
        plain = with_public_names(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException:  # it names only the first problem
        plain = with_public_names(_plain(config, "", problems))
    model = plain.get("model")
    if isinstance(model, dict) and isinstance(path := model.get("weights_from"), str):
        model["weights_from"] = _lasting(path)
    return plain, problems


def _lasting(path: str) -> str:
    """``path`` as an absolute path that means the same tomorrow: what ``outputs/latest`` is a link to now."""
    if path.startswith("~"):  # refused elsewhere
        return path
    target = os.path.join(os.path.dirname(path), os.readlink(path)) if os.path.islink(path) else path
    return os.path.abspath(target)


def _plain(node: Any, key: str, problems: list[Problem]) -> Any:
    if isinstance(node, DictConfig):
        if node._is_none():
            return None
        names: list[Any] = list(node)
        return {name: _child(node, name, f"{key}.{name}" if key else str(name), problems) for name in names}
    if isinstance(node, ListConfig):
        if node._is_none():
            return None
        return [_child(node, index, f"{key}[{index}]", problems) for index in range(len(node))]
    return node


def _child(parent: DictConfig | ListConfig, name: Any, key: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(parent, name):
        problems.append(Problem(key, NO_VALUE, "a value is required", f"{key}=…"))
        return UNRESOLVED
    try:
        value = parent[name]
    except OmegaConfBaseException as error:
        text: Any = OmegaConf.to_container(parent, resolve=False)[name]  # type: ignore[index]
        reason = " ".join(str(error).split("full_key:")[0].split())
        fix = f"{key}={near}" if (near := _nearest_reference(str(text), reason, key, parent)) else ""
        problems.append(Problem(key, f"{text!r} cannot be resolved: {reason}", "${<key>} or ${oc.env:<variable>,<default>}", fix))
        return UNRESOLVED
    return _plain(value, key, problems)


def _nearest_reference(text: str, reason: str, key: str, node: DictConfig | ListConfig) -> str:
    """``text`` with the other key that is nearest to the one that was not found; empty if there is none."""
    missing = re.search(r"Interpolation key '([^']+)' not found", reason)
    if missing is None:
        return ""
    others = [other for other in _dotted(OmegaConf.to_container(node._get_root(), resolve=False)) if other != key]
    near = nearest(missing[1], others)
    return text.replace(missing[1], near) if near else ""


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _dotted(child, f"{prefix}{name}.")
