"""Arguments that a node still has from another choice of its group after only its ``_target_`` was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from altprop.config.project import config_files
from altprop.problems import Problem

GROUPS = {
    "model": "model",
    "dataset": "dataset",
    "algorithm": "algorithm",
    "optimizer": "optimizer",
    "schedule.scheduler": "schedule",
}
"""Key of a node -> the config group that has a choice ``other`` for classes of the user's own."""


def leftovers(key: str, node: Mapping[str, Any], problems: list[Problem]) -> list[Problem]:
    """``problems`` of ``node`` with one in place of those about arguments that a choice has set for its own class."""
    unknown = {problem.key.removeprefix(f"{key}."): problem for problem in problems if problem.description.endswith(_UNKNOWN)}
    choices = _choices(key, node, set(unknown)) if unknown else {}
    if not choices:
        return problems
    same = [choice for choice, unchanged in choices.items() if unchanged] or list(choices)
    source = f"{GROUPS[key]}={same[0]} sets" if len(same) == 1 else f"another choice of {GROUPS[key]} sets"
    path, group = str(node["_target_"]), GROUPS[key]
    names = ", ".join(unknown)
    summary = Problem(
        f"{key}._target_",
        f"{path.rpartition('.')[2]} does not take {names}, which {source}",
        f"{group}=other has no arguments; add yours as +{key}.<name>=…",
        f"{group}=other {key}._target_={path}",
    )
    return [summary]


_UNKNOWN = "has no such argument"


def _choices(key: str, node: Mapping[str, Any], unknown: set[str]) -> dict[str, bool]:
    """The choices of the group whose arguments ``node`` still has, although they are for another class.

    The value says whether the plain values of these arguments are those of the choice, too.
    """
    group, choices = GROUPS.get(key), {}
    for file in sorted(config_files(group)) if group else ():
        content = OmegaConf.load(file)
        if key == "schedule.scheduler" and isinstance(content, DictConfig):
            content = content.get("scheduler")
        if not isinstance(content, DictConfig) or OmegaConf.is_missing(content, "_target_"):
            continue
        values: Any = OmegaConf.to_container(content, resolve=False)
        defaults = {name for entry in values.pop("defaults", []) if isinstance(entry, dict) for name in entry}
        target = values.pop("_target_", None)
        values.pop("_partial_", None)
        if target != node["_target_"] and set(values) <= set(node) and unknown <= {*values, *defaults}:
            choices[file.stem] = all(node[name] == value for name, value in values.items() if not isinstance(value, dict))
    return choices
