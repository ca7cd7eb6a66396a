"""Text from the environment (``${oc.env:TOKEN}``): a run stores where it comes from, not what it is.

The objects of a run are built from the values. Everything that is written (``config.yaml``, checkpoints, trackers) shows the
interpolation instead, because a variable may be a secret. Numbers are stored as numbers, and so are the run's name, its folders
and the names of classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from altprop.keys import walk
from altprop.problems import Problem

VISIBLE = ("name", "paths")
"""Root keys whose values are stored: they are the path of the run directory and of the data."""
VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)\}")
"""How a stored configuration names a variable."""
DECODED = re.compile(r"\$\{oc\.decode:\$\{oc\.env:([A-Za-z_]\w*)\}\}")
LABELS = ("group", "tags", "paper")
"""Root keys that are only shown, in the form in which they are stored, so that their variables are never read again."""
_MARK = re.compile("\0(decode:)?([A-Za-z_]\\w*)\0")
_ABSENT = object()


def without_environment(config: DictConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``plain`` that names the variable wherever ``config`` takes text from one that is set.

    Args:
        config: The composed configuration.
        plain: Its resolved values.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    for name in VISIBLE:
        if name in raw:
            raw[name] = deepcopy(plain.get(name))
    variables = set(re.findall(r"oc\.env:\s*([A-Za-z_]\w*)", repr(raw))) & set(os.environ)
    if not variables:
        return dict(plain)
    with _marked_variables():
        return {name: _stored(child, OmegaConf.create(raw), [name], variables) for name, child in plain.items()}


def group_of(config: DictConfig) -> str:
    """The group of the runs of the sweep ``config``, as it is stored."""
    plain = {"name": config.name, "paths": OmegaConf.to_container(config.paths, resolve=True), "group": config.group}
    return str(without_environment(config, plain)["group"] or config.name)


def _stored(value: Any, marked: DictConfig, path: list[Any], variables: set[str]) -> Any:
    """``value`` as it is stored. ``marked`` is the configuration in which variables resolve to marks, ``path`` is its place."""
    text = _marked_value(marked, path)
    if isinstance(text, str) and _MARK.search(text) and path[-1] != "_target_":
        if isinstance(value, str) or (isinstance(value, (dict, list)) and _has_text(value)):
            return _MARK.sub(lambda mark: f"${{oc.decode:${{oc.env:{mark[2]}}}}}" if mark[1] else f"${{oc.env:{mark[2]}}}", text)
        return value
    if isinstance(value, dict):
        return {name: _stored(child, marked, [*path, name], variables) for name, child in value.items()}
    if isinstance(value, list):
        return [_stored(child, marked, [*path, index], variables) for index, child in enumerate(value)]
    if isinstance(value, str) and text is _ABSENT:  # a resolver that cannot work with a mark
        for name in variables:
            if os.environ[name]:
                value = value.replace(os.environ[name], f"${{oc.env:{name}}}")
    return value


def _marked_value(marked: DictConfig, path: list[Any]) -> Any:
    """The value at ``path`` with marks; :data:`_ABSENT` if it cannot be resolved."""
    node: Any = marked
    try:
        for name in path:
            node = node[name]
    except (OmegaConfBaseException, KeyError, IndexError, TypeError, ValueError):
        return _ABSENT
    return node


def _has_text(value: Any) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, str) or any(map(_has_text, children))


@contextmanager
def _marked_variables() -> Iterator[None]:
    """Let ``oc.env`` return a mark for each variable that is set, and ``oc.decode`` pass it on."""

    def variable(key: str, default: Any = _ABSENT) -> Any:
        if re.fullmatch(r"[A-Za-z_]\w*", key) and key in os.environ:
            return f"\0{key}\0"
        return oc.env(key) if default is _ABSENT else oc.env(key, default)

    def decode(text: str | None, *, _parent_: Any, _node_: Any) -> Any:
        mark = _MARK.fullmatch(text) if text is not None else None
        return f"\0decode:{mark[2]}\0" if mark is not None else oc.decode(text, _parent_=_parent_, _node_=_node_)

    OmegaConf.register_new_resolver("oc.env", variable, replace=True)
    OmegaConf.register_new_resolver("oc.decode", decode, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        OmegaConf.register_new_resolver("oc.decode", oc.decode, replace=True)


def variables_of(stored: Any) -> list[str]:
    """The variables that the stored configuration names, sorted."""
    return sorted({name for _, text in walk(stored) if isinstance(text, str) for name in VARIABLE.findall(text)})


def with_environment(stored: Any, key: str, problems: list[Problem]) -> Any:
    """A copy of the ``stored`` value at ``key`` with the values of its variables. Those that are not set become ``problems``."""
    if key in LABELS:
        return stored
    if isinstance(stored, Mapping):
        return {name: with_environment(child, f"{key}.{name}" if key else str(name), problems) for name, child in stored.items()}
    if isinstance(stored, list):
        return [with_environment(child, f"{key}[{index}]", problems) for index, child in enumerate(stored)]
    if not isinstance(stored, str) or not (names := VARIABLE.findall(stored)):
        return stored
    if missing := [name for name in dict.fromkeys(names) if name not in os.environ]:
        description = f"comes from the environment, where {', '.join(missing)} is not set"
        problems.append(Problem(key, description, "the value that the run was started with", f"export {missing[0]}=…"))
        return stored
    if DECODED.fullmatch(stored):
        return OmegaConf.to_container(OmegaConf.create({"value": stored}), resolve=True)["value"]  # type: ignore[call-overload,index]
    return VARIABLE.sub(lambda name: os.environ[name[1]], stored)
