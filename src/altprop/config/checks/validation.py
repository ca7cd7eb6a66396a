"""Checks of a whole configuration before anything is built. All problems are reported at once, one line each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from altprop.algorithms.base import Algorithm
from altprop.algorithms.schedule import TOTAL, Schedule
from altprop.config.checks import rules, trial
from altprop.config.checks.descriptions import choice_meant, wrong_type
from altprop.config.checks.leftovers import leftovers
from altprop.config.checks.metrics import METRIC, metric_place, metric_problem, metrics_problems
from altprop.config.checks.nodes import Place, check_nested, check_node
from altprop.config.checks.targets import defaults_of, locate, signature_of, unknown_target
from altprop.config.checks.types import argument_errors, is_unresolved, takes_nodes
from altprop.config.checks.unused import home_folders, unused_roots
from altprop.config.plain import UNRESOLVED, to_plain
from altprop.config.project import config_files
from altprop.config.schema import ClusterConfig, PaperConfig, PathsConfig, ResourcesConfig, RootConfig
from altprop.config.typed import as_typed
from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.rules import problems_with
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem
from altprop.tracking.base import Tracker
from altprop.training.settings import EarlyStopping, TrainerSettings

PLACES = {
    "dataset": Place(),
    "model": Place(nn.Module, partial=True, supplied=("input_shape", "num_classes"), own={"weights_from": str | None}),
    "model.units": Place(nn.Module, partial=True),
    "algorithm": Place(Algorithm),
    "algorithm.weights": Place(WeightsRule),
    "optimizer": Place(Optimizer, partial=True, supplied_first=True),
    "schedule": Place(Schedule),
    "schedule.scheduler": Place(LRScheduler, partial=True, supplied_first=True, placeholders=(TOTAL,), nullable=True),
    "task": Place(partial=True, supplied=("parts",)),
}
"""The keys whose nodes altprop builds and completes (docs/design.md, "Config in, objects out"), besides ``logger.<name>``."""
LATEST = "latest"
"""The link in ``paths.outputs`` to the newest run, which no run can have as its name."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SETTINGS = {
    "trainer": TrainerSettings,
    "paths": PathsConfig,
    "cluster": ClusterConfig,
    "resources": ResourcesConfig,
    "paper": PaperConfig,
}
"""The keys that hold the fields of a dataclass."""
Hook = Callable[[], Iterable[Problem]]
"""What the class of one node checks itself."""
_TRACKER = Place(Tracker)
_ROOT_KEYS = tuple(field.name for field in dataclasses.fields(RootConfig))
_RULED = ("algorithm", "model", "trainer", "metrics")
"""The keys that the rules look at. The rules are skipped if one of them has a problem of its own."""


def problems_of(config: DictConfig) -> list[Problem]:
    """Every problem of a composed configuration."""
    return _problems(config)[1]


def plain_and_valid(config: DictConfig) -> dict[str, Any]:
    """Return ``config`` as plain containers. Raises ConfigError with every problem."""
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
    if "model" not in broken:
        problems += trial.units_problems(config)
    if "optimizer" not in broken:
        problems += trial.check(config, with_schedule=not broken & {"schedule", "trainer"})
    return list(dict.fromkeys(problems))


def problems_of_node(key: str, node: Any, config: Mapping[str, Any]) -> list[Problem]:
    """Every problem of the nodes at and below ``key`` of a resolved configuration in plain containers."""
    hooks: list[Hook] = []
    problems = list(_walk(key, node, config, hooks))
    return list(dict.fromkeys([*problems, *_run(hooks, tolerant=bool(problems))]))


def _problems_of_nodes(config: Mapping[str, Any]) -> list[Problem]:
    names = [*_check_name(config["name"]), *_check_paths(config["paths"])]
    refused = {problem.key for problem in names}
    problems = [
        *names,
        *(problem for problem in _check_root(config) if problem.key not in refused),
        *_check_places(config),
        *_check_trackers(config["logger"]),
    ]
    problems += metrics_problems(config.get("metrics"))
    hooks: list[Hook] = []
    for key, value in config.items():
        if key not in SETTINGS:
            problems += _walk(key, value, config, hooks)
    problems += _run(hooks, tolerant=bool(problems))
    return list(dict.fromkeys(problems))


def _problems(config: DictConfig) -> tuple[dict[str, Any], list[Problem]]:
    plain, problems = to_plain(config)
    stopping = plain["trainer"]["early_stopping"]
    if isinstance(stopping, dict):  # the schema cannot fill in the defaults of a mapping that may be null
        plain["trainer"]["early_stopping"] = {**dataclasses.asdict(EarlyStopping()), **stopping}
    unused = [*unused_roots(config, _ROOT_KEYS, plain), *home_folders(plain)]
    if problems:
        return plain, [*problems, *unused, *_problems_of_nodes(plain)]
    return plain, [*unused, *problems_of_plain(plain)]


def _check_places(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Check that every known key holds a node with a target."""
    for key, place in PLACES.items():
        parent, _, name = key.rpartition(".")
        node: Any = config.get(parent) if parent else config
        if not isinstance(node, Mapping) or (parent and name not in node):
            continue
        value = node.get(name)
        if value is UNRESOLVED or (value is None and place.nullable) or (isinstance(value, dict) and "_target_" in value):
            continue
        if (meant := choice_meant(key, value)) is not None:
            yield meant
            continue
        group = key.replace(".", "/")
        yield Problem(key, "is not set" if value is None else "has no _target_", f"a choice of the group {group}", f"{group}=…")


def _check_name(name: Any) -> Iterator[Problem]:
    """Check that the run directory ``<paths.outputs>/<name>/<key>`` is below ``paths.outputs``."""
    if name is UNRESOLVED or not isinstance(name, str):
        return
    parts = name.split("/")
    if _CONTROL.search(name) or any(not part.strip() or part.startswith(".") for part in parts) or parts[0] == LATEST:
        allowed = f"a folder below paths.outputs, such as mine or mine/quick, but neither {LATEST} nor a hidden one"
        yield Problem("name", f"{name!r} is not a name", allowed, "name=mine")


def _check_paths(paths: Any) -> Iterator[Problem]:
    """Check that the folders of data and runs are paths."""
    for key, path in paths.items() if isinstance(paths, Mapping) else ():
        if isinstance(path, str) and (not path.strip() or _CONTROL.search(path)):
            yield Problem(f"paths.{key}", f"{path!r} is not a path", "a folder; . is the current one", f"paths.{key}=.")


def _check_trackers(logger: Any) -> Iterator[Problem]:
    """Check that ``logger`` is null or holds a node with a target, or null, for each tracker."""
    if logger is None or logger is UNRESOLVED:
        return
    if not isinstance(logger, Mapping):
        yield Problem(
            "logger", f"{as_typed(logger)} does not fit", "trackers by name, a choice of the group, or null", "logger=console"
        )
        return
    for name, node in logger.items():
        if node is None or node is UNRESOLVED or (isinstance(node, dict) and "_target_" in node):
            continue
        known = isinstance(node, dict) and any(file.stem == name for file in config_files("logger"))
        allowed = f"logger={name} switches it on" if known else "a tracker with a _target_, or null, which switches it off"
        settings = " ".join(f"logger.{name}.{key}={as_typed(value)}" for key, value in node.items()) if known else ""
        description = "has no _target_" if isinstance(node, dict) else f"{as_typed(node)} does not fit"
        yield Problem(f"logger.{name}", description, allowed, f"logger={name} {settings}" if known else f"logger.{name}=null")


def _walk(key: str, value: Any, root: Mapping[str, Any], hooks: list[Hook]) -> Iterator[Problem]:
    """The problems of every node at or below ``key``, including those in lists.

    Adds what the classes of valid nodes check themselves to ``hooks``. The node of a hook and all nodes in it are valid.
    """
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield from _walk(f"{key}[{index}]", child, root, hooks)
    elif isinstance(value, Mapping):
        own: list[Hook] = []
        problems = list(_check_target(key, value, root, own)) if "_target_" in value else []
        yield from problems
        inner = [problem for name, child in value.items() for problem in _walk(f"{key}.{name}", child, root, hooks)]
        yield from inner
        if not problems and not inner:
            hooks += own


def _run(hooks: list[Hook], *, tolerant: bool) -> list[Problem]:
    """The problems that ``hooks`` find. If ``tolerant``, a hook may fail, because a value elsewhere that it uses is wrong."""
    problems = []
    for hook in hooks:
        try:
            problems += list(hook())
        except Exception:
            if not tolerant:
                raise
    return problems


def _check_target(key: str, node: Mapping[str, Any], root: Mapping[str, Any], hooks: list[Hook]) -> Iterator[Problem]:
    path = node["_target_"]
    if path is UNRESOLVED:
        return
    target = locate(path) if isinstance(path, str) else None
    if target is None:
        yield unknown_target(key, str(path))
        return
    place = _place(key)
    signature = signature_of(target)
    if place is METRIC:
        if problem := metric_problem(key, target):
            yield problem
            return
        if isinstance(target, type):  # torchmetrics passes on arguments that signatures do not show; it is tried before training
            signature = None
        place = metric_place(signature)
    problems = leftovers(key, node, list(check_node(key, node, target, signature, place)))
    for name, child in node.items():
        parameter = signature.parameters.get(name) if signature is not None else None
        if parameter is not None and isinstance(child, dict) and isinstance(child.get("_target_"), str):
            inner = locate(child["_target_"])
            if inner is not None and f"{key}.{name}" not in PLACES:
                problems += check_nested(f"{key}.{name}", child, inner, parameter.annotation)
    yield from problems
    if problems:
        return
    check = getattr(target, "check", None)
    complete = {**defaults_of(target), **node}
    if callable(check) and not is_unresolved(node):
        hooks.append(lambda: check(complete, root))
    if isinstance(target, type) and issubclass(target, Estimator):
        hooks.append(lambda: problems_with(target, complete, root))


def _place(key: str) -> Place | None:
    if key.startswith("logger.") and key.count(".") == 1:
        return _TRACKER
    if key.startswith("metrics.") and key.count(".") == 1:
        return METRIC
    if key.startswith("schedule.scheduler.schedulers["):  # the parts of SequentialLR and ChainedScheduler
        return PLACES["schedule.scheduler"]
    return PLACES.get(key)


def _check_root(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the types and ranges of everything that is not a node of a group with targets."""
    yield from _check_settings(
        "", {name: config[name] for name in _ROOT_KEYS if name in config and name not in SETTINGS}, RootConfig
    )
    for key, cls in SETTINGS.items():
        node = config.get(key)
        if isinstance(node, Mapping):
            yield from _check_settings(key, node, cls)
        elif node is not UNRESOLVED and not (node is None and key == "paper"):
            names = ", ".join(field.name for field in dataclasses.fields(cls))
            yield Problem(key, f"{as_typed(node)} does not fit", f"its keys, one by one: {names}", f"{key}.<key>=…")
    stopping = config["trainer"].get("early_stopping") if isinstance(config["trainer"], Mapping) else None
    if isinstance(stopping, Mapping):
        yield from _check_settings("trainer.early_stopping", stopping, EarlyStopping)


def _check_settings(key: str, node: Mapping[str, Any], cls: type) -> Iterator[Problem]:
    """Check the fields of a dataclass one by one, so that every wrong value is reported."""
    signature = signature_of(cls)
    assert signature is not None
    prefix = f"{key}." if key else ""
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    values = {
        name: value
        for name, value in node.items()
        if not is_unresolved(value) and not (isinstance(value, Mapping) and (name not in hints or takes_nodes(hints[name])))
    }
    errors = argument_errors(signature, values, nodes=False)
    for name, value in values.items():
        if name not in signature.parameters:
            yield Problem(f"{prefix}{name}", "there is no such key", f"keys of {key}: {', '.join(sorted(signature.parameters))}")
        elif name in errors:
            yield wrong_type(f"{prefix}{name}", value, signature.parameters[name].annotation)
        else:
            try:
                cls(**{name: value})
            except ValueError as error:
                yield Problem(f"{prefix}{name}", f"{value} is refused", str(error).removeprefix(f"{key}.{name}: "))
