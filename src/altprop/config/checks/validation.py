"""Checks of a whole configuration before anything is built: every problem at once, one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from altprop.algorithms.base import Algorithm
from altprop.algorithms.schedule import TOTAL, Schedule
from altprop.config.checks import rules, trial
from altprop.config.checks.nodes import Place, check_nested, check_node, check_types
from altprop.config.checks.targets import locate, signature_of, unknown_target
from altprop.config.checks.types import holds_unresolved
from altprop.config.plain import UNRESOLVED, to_plain
from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.rules import problems_with
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem
from altprop.tracking.base import Tracker
from altprop.training.settings import EarlyStopping, TrainerSettings

PLACES = {
    "dataset": Place(),
    "model": Place(nn.Module, partial=True, supplied=("input_shape", "num_classes")),
    "model.units": Place(nn.Module, partial=True),
    "algorithm": Place(Algorithm),
    "algorithm.weights": Place(WeightsRule),
    "optimizer": Place(Optimizer, partial=True, supplied_first=True),
    "schedule": Place(Schedule),
    "schedule.scheduler": Place(LRScheduler, partial=True, supplied_first=True, placeholder=TOTAL, nullable=True),
    "task": Place(partial=True, supplied=("parts",)),
}
"""The keys whose nodes altprop builds and completes itself (docs/design.md, "Config in, objects out"), and ``logger.<name>``."""
_TRACKER = Place(Tracker)
_RULED = ("algorithm", "model", "trainer")
"""The rules look at these; they say nothing where one of them is wrong in itself."""


def problems_of(config: DictConfig) -> list[Problem]:
    """Every problem of a composed configuration."""
    return _problems(config)[1]


def plain_and_valid(config: DictConfig) -> dict[str, Any]:
    """``config`` as plain containers; raises ConfigError with every problem."""
    plain, problems = _problems(config)
    if problems:
        raise ConfigError(problems)
    return plain


def problems_of_plain(config: Mapping[str, Any]) -> list[Problem]:
    """Every problem of a resolved configuration in plain containers."""
    problems = _problems_of_nodes(config)
    broken = {problem.key.partition(".")[0] for problem in problems}
    if not broken & set(_RULED):
        problems += rules.check(config)
    if "optimizer" not in broken:
        problems += trial.check(config, with_schedule=not broken & {"schedule", "trainer"})
    return list(dict.fromkeys(problems))


def problems_of_node(key: str, node: Any, config: Mapping[str, Any]) -> list[Problem]:
    """Every problem of the nodes at and below ``key`` of a resolved configuration in plain containers."""
    return list(dict.fromkeys(_walk(key, node, config)))


def _problems_of_nodes(config: Mapping[str, Any]) -> list[Problem]:
    problems = [*_check_places(config), *_check_trainer(config["trainer"])]
    for key, value in config.items():
        if key != "trainer":
            problems += _walk(key, value, config)
    return list(dict.fromkeys(problems))


def _problems(config: DictConfig) -> tuple[dict[str, Any], list[Problem]]:
    plain, problems = to_plain(config)
    stopping = plain["trainer"]["early_stopping"]
    if isinstance(stopping, dict):  # the schema cannot fill in what is left out of a mapping that may be null
        plain["trainer"]["early_stopping"] = {**dataclasses.asdict(EarlyStopping()), **stopping}
    if problems:
        return plain, [*problems, *_problems_of_nodes(plain)]
    return plain, problems_of_plain(plain)


def _check_places(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Known keys that hold something else than a node with a target."""
    for key, place in PLACES.items():
        parent, _, name = key.rpartition(".")
        node: Any = config.get(parent) if parent else config
        if not isinstance(node, Mapping) or (parent and name not in node):
            continue
        value = node.get(name)
        if value is UNRESOLVED or (value is None and place.nullable) or (isinstance(value, dict) and "_target_" in value):
            continue
        group = key.replace(".", "/")
        yield Problem(key, "is not set" if value is None else "has no _target_", f"a choice of the group {group}", f"{group}=…")


def _walk(key: str, value: Any, root: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of every node at or below ``key``, in lists too."""
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield from _walk(f"{key}[{index}]", child, root)
    elif isinstance(value, Mapping):
        if "_target_" in value:
            yield from _check_target(key, value, root)
        for name, child in value.items():
            yield from _walk(f"{key}.{name}", child, root)


def _check_target(key: str, node: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    path = node["_target_"]
    if path is UNRESOLVED:
        return
    target = locate(path) if isinstance(path, str) else None
    if target is None:
        yield unknown_target(key, str(path))
        return
    place = _TRACKER if key.startswith("logger.") and key.count(".") == 1 else PLACES.get(key)
    signature = signature_of(target)
    found = list(check_node(key, node, target, signature, place))
    for name, child in node.items():
        parameter = signature.parameters.get(name) if signature is not None else None
        if parameter is not None and isinstance(child, dict) and isinstance(child.get("_target_"), str):
            inner = locate(child["_target_"])
            if inner is not None and f"{key}.{name}" not in PLACES:
                found += check_nested(f"{key}.{name}", child, inner, parameter.hint)
    yield from found
    check = getattr(target, "check", None)
    if not found and callable(check):
        yield from check(node, root)
    if not found and isinstance(target, type) and issubclass(target, Estimator):
        yield from problems_with(target, node, root)


def _check_trainer(node: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _check_settings("trainer", node, TrainerSettings)
    if isinstance(node.get("early_stopping"), Mapping):
        yield from _check_settings("trainer.early_stopping", node["early_stopping"], EarlyStopping)


def _check_settings(key: str, node: Mapping[str, Any], cls: type) -> Iterator[Problem]:
    """Each field on its own, so that all wrong ones are told at once."""
    signature = signature_of(cls)
    assert signature is not None
    known = {field.name for field in dataclasses.fields(cls)}
    for name, value in node.items():
        if isinstance(value, Mapping) or holds_unresolved(value):
            continue
        if name not in known:
            yield Problem(f"{key}.{name}", "there is no such key", f"keys of {key}: {', '.join(sorted(known))}")
            continue
        wrong = list(check_types(key, {name: value}, signature))
        yield from wrong
        if wrong:
            continue
        try:
            cls(**{name: value})
        except ValueError as error:
            yield Problem(f"{key}.{name}", f"{value} is refused", str(error).removeprefix(f"{key}.{name}: "))
