"""Suggestions for unknown keys, groups and choices."""

from __future__ import annotations

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from altprop.commands.messages.command_line import CommandLine, CompositionError
from altprop.names import renamed_problem
from altprop.problems import Problem, nearest

_OF_THE_MACHINE = ("cluster", "resources", "paths")
"""Groups whose keys are not suggested for a key of another group."""


def choices_of(line: CommandLine, group: str) -> list[str]:
    """The choices of ``group``."""
    return list(line.composer.loader.get_group_options(group, ObjectType.CONFIG))


def compose_leniently(line: CommandLine) -> DictConfig | None:
    """The configuration of ``line``, or without any override if it cannot be composed; None if that fails, too."""
    for candidate in (line, CommandLine(line.config_name, [], False, line.composer)):
        try:
            return candidate.compose()
        except CompositionError:
            continue
    return None


def inventory(config: DictConfig | None, key: str) -> str:
    """The sibling keys of ``key``, in words."""
    parent = key.rpartition(".")[0]
    names = names_of(config, parent)
    if not names:
        parent, names = "", names_of(config, "")
    return f"{f'keys of {parent}' if parent else 'keys'}: {', '.join(names)}"


def nearest_key(config: DictConfig | None, line: CommandLine, key: str) -> str | None:
    """The existing key that was most likely meant: a sibling, the same name elsewhere, or a similar name elsewhere."""
    if config is None:
        return None
    groups = groups_of(line)
    if "/" in key:
        return nearest(key, groups)
    parent, _, name = key.rpartition(".")
    if near := nearest(name, names_of(config, parent)):
        return f"{parent}.{near}" if parent else near
    if not parent and (near := nearest(name, groups)):
        return near
    others = [other for other in _dotted(config) if not parent or other.partition(".")[0] not in _OF_THE_MACHINE]
    elsewhere = {other.rpartition(".")[2]: other for other in reversed(others)}
    if name in elsewhere:
        return elsewhere[name]
    return None if parent else elsewhere.get(nearest(name, elsewhere) or "")


def choices_with(line: CommandLine, key: str) -> list[str]:
    """The choices of the group of ``key`` whose own files have its last name, as ``<group>=<choice>``."""
    parent, _, name = key.rpartition(".")
    group = parent.replace(".", "/")
    loader = line.composer.loader
    assert isinstance(loader, ConfigLoaderImpl)
    if not group or not loader.repository.group_exists(group):
        return []
    files = {choice: loader.repository.load_config(f"{group}/{choice}") for choice in choices_of(line, group)}
    return [
        choice for choice, file in files.items() if file is not None and OmegaConf.is_dict(file.config) and name in file.config
    ]


def groups_of(line: CommandLine, parent: str = "") -> list[str]:
    """Every group below ``parent`` except experiments, sweeps and Hydra's own."""
    groups = []
    for name in line.composer.loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group not in ("experiment", "sweep", "hydra"):
            groups += [group, *groups_of(line, group)]
    return groups


def names_of(config: DictConfig | None, key: str) -> list[str]:
    """The keys of the node at ``key``; empty if there is no such node."""
    node: Any = config if not key or config is None else _select(config, key)
    if not isinstance(node, DictConfig) or not node:
        return []
    return [str(name) for name in node if not str(name).startswith("_") and (key or name != "hydra")]


def _dotted(node: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration except Hydra's own."""
    keys: list[str] = []
    if not OmegaConf.is_dict(node) or node._is_none() or node._is_missing():
        return keys
    for name in node:
        if name == "hydra" and not prefix:
            continue
        keys.append(f"{prefix}{name}")
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            keys += _dotted(node[name], f"{prefix}{name}.")
    return keys


def _select(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def is_null(config: DictConfig, key: str) -> bool:
    """Whether ``key`` exists and is null."""
    parent, _, name = key.rpartition(".")
    return bool(key) and name in names_of(config, parent) and _select(config, key) is None


def is_optional(config: DictConfig, key: str) -> bool:
    """Whether the typed ``key`` may be null."""
    parent, _, name = key.rpartition(".")
    node = _select(config, parent) if parent else config
    child = node._get_node(name) if isinstance(node, DictConfig) else None
    return child is not None and child._is_optional()


def accepts(config: DictConfig | None, key: str) -> bool:
    """Whether the class of the node above ``key`` has an argument of that name."""
    from altprop.config.checks import targets  # finding a target may import torch

    target = _target_above(config, key)
    return target is not None and targets.accepts(target, key.rpartition(".")[2])


def renamed_argument(config: DictConfig | None, key: str, value: str) -> Problem | None:
    """The problem of a ``key`` that is the former name of an argument of the class of the node above it, if it is one."""
    target = _target_above(config, key)
    return None if target is None else renamed_problem(target, key, value)


def _target_above(config: DictConfig | None, key: str) -> str | None:
    """The target of the node above ``key``."""
    parent = key.rpartition(".")[0]
    node = _select(config, parent) if config is not None and parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) and not OmegaConf.is_missing(node, "_target_") else None
    return target if isinstance(target, str) else None
