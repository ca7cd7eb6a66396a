"""Every argument that a configuration can set has a range, or a type that needs none."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, Predicate
from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.descriptions import members, without_range
from altprop.config.checks.targets import Signature, locate, signature_of
from altprop.config.checks.validation import PLACES, SETTINGS
from altprop.config.command_settings import COMMAND_SETTINGS
from altprop.config.project import CONF
from altprop.config.schema import RootConfig
from altprop.names import targets_in
from altprop.training.settings import EarlyStopping

SUPPLIED = {"input_shape", "num_classes", "parts", "params", "optimizer", "scores", "targets", "shape", "prefer"}
"""Arguments that altprop supplies, so that a configuration cannot set them."""
MAPPINGS, SEQUENCES = (dict, abc.Mapping), (list, tuple, abc.Sequence, abc.Iterable)
FREE = {
    ("hydra_plugins.altprop_sweeps.GridSweeper", "params"): "overrides, which are checked in every job",
    ("hydra_plugins.altprop_sweeps.GridSweeper", "search"): "overrides of trials, which are checked in every trial",
    ("hydra_plugins.altprop_sweeps.OptunaSearch", "params"): "overrides, which are checked in every job",
    ("hydra_plugins.altprop_sweeps.OptunaSearch", "search"): "refused unless null",
}
"""Target and argument -> why its values need no range."""


def configured() -> list[str]:
    """The targets of all files in ``conf`` and ``sweeps``."""
    found = set()
    for file in CONF.rglob("*.yaml"):
        content = OmegaConf.load(file)
        if isinstance(content, DictConfig):
            found |= set(targets_in(OmegaConf.to_container(content))) - {"???"}
    return sorted(found)


def has_range(hint: Any) -> bool:
    """Whether every number and every text that ``hint`` allows is bounded."""
    if hint is inspect.Parameter.empty or hint is Any:
        return False
    if len(members(hint)) > 1:
        return all(map(has_range, members(hint)))
    bare = without_range(hint)
    constraints = get_args(hint)[1:] if bare is not hint else ()
    if bare in (int, float):
        low = any(isinstance(item, Ge | Gt) for item in constraints)
        return low and any(isinstance(item, Le | Lt) for item in constraints)
    if bare is str:
        return any(isinstance(item, Predicate) for item in constraints)
    if get_origin(bare) is Literal:
        return True
    arguments = [argument for argument in get_args(bare) if argument is not ...]
    if get_origin(bare) in MAPPINGS:
        return all(has_range(argument) for argument in arguments if argument is not str)
    if get_origin(bare) in SEQUENCES:
        return all(map(has_range, arguments))
    return bare is not object  # bool, null, a class or a function, which only a node can be


def without_ranges(signature: Signature) -> list[str]:
    return [name for name, item in signature.parameters.items() if name not in SUPPLIED and not has_range(item.annotation)]


@pytest.mark.parametrize("target", configured())
def test_every_argument_of_a_configured_class_has_a_range(target: str) -> None:
    located = locate(target)
    assert located is not None
    signature = signature_of(located)
    assert signature is not None
    missing = [name for name in without_ranges(signature) if (target, name) not in FREE]
    assert missing == [], "give these arguments a type of altprop.ranges, or say in FREE why they need none"


@pytest.mark.parametrize("command", COMMAND_SETTINGS)
def test_every_key_of_a_command_has_a_type(command: str) -> None:
    keys = OmegaConf.load(CONF / f"{command}.yaml").keys() - {"defaults", "hydra"}
    assert keys == {field.name for field in dataclasses.fields(COMMAND_SETTINGS[command])}


@pytest.mark.parametrize("cls", [*SETTINGS.values(), *COMMAND_SETTINGS.values(), EarlyStopping], ids=lambda cls: cls.__name__)
def test_every_setting_has_a_range(cls: type) -> None:
    signature = signature_of(cls)
    assert signature is not None
    free = {"sbatch", "milestones"}  # options of sbatch, and published values that are only printed
    assert set(without_ranges(signature)) <= free


def test_every_root_key_has_a_range_or_holds_nodes() -> None:
    signature = signature_of(RootConfig)
    assert signature is not None
    nodes = {key.partition(".")[0] for key in PLACES} | {"logger", "metrics"}
    assert set(without_ranges(signature)) <= nodes
    assert {field.name for field in dataclasses.fields(RootConfig)} >= nodes | set(SETTINGS)
