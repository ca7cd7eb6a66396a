"""The experiment and sweep files and the jobs of sweeps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from altprop.config.compose import Composer
from altprop.config.project import CONF, ROOT
from altprop.problems import Problem

EXPERIMENTS = sorted(f"{file.parent.name}/{file.stem}" for file in (CONF / "experiment").glob("*/*.yaml"))
"""``<paper>/<row>``; folders of a paper, such as ``iterative/_networks``, hold the parts that its rows share."""
SWEEPS = sorted(
    file.relative_to(ROOT / "sweeps").with_suffix("").as_posix()
    for file in (ROOT / "sweeps").rglob("*.yaml")
    if file.parent.name != "wandb"
)


def content(group: str, name: str) -> tuple[list[str], Any]:
    """The lines of an experiment or sweep file and its parsed content."""
    file = (CONF / "experiment" if group == "experiment" else ROOT / "sweeps") / f"{name}.yaml"
    return file.read_text().splitlines(), OmegaConf.to_container(OmegaConf.load(file))


def sweep_params(name: str) -> dict[str, Any]:
    """``hydra.sweeper.params`` of a sweep file."""
    _, values = content("sweep", name)
    return values["hydra"]["sweeper"]["params"]


def jobs(name: str, composer: Composer) -> Iterator[tuple[str, DictConfig]]:
    """Jobs of a sweep that cover every value of every key and three choices of every group, but not all combinations.

    Composing is slow, so it is done once for each combination of groups, and single values are set afterwards.
    """
    configs: dict[tuple[str, ...], DictConfig] = {}
    values = [_thinned(_values(f"{key}={value}", composer), composer) for key, value in sweep_params(name).items()]
    for index in range(max(len(choices) for choices in values)):
        job = [choices[index % len(choices)] for choices in values]
        groups = tuple(str(override.input_line) for override in job if is_group(override, composer))
        if groups not in configs:
            configs[groups] = without_hydra(composer.compose("train", [f"sweep={name}", *groups]))
        config = copy.deepcopy(configs[groups])
        for override in job:
            if not is_group(override, composer):
                OmegaConf.update(config, override.key_or_group, override.value())
        yield " ".join(str(override.input_line) for override in job), config


def _values(text: str, composer: Composer) -> list[Override]:
    """One override for each value of a swept override, or for both ends of an interval."""
    parser = OverridesParser.create(composer.loader)
    override = parser.parse_override(text)
    if not override.is_sweep_override():
        return [override]
    sweep = override.value()
    values = [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else override.sweep_string_iterator()
    return [parser.parse_override(f"{override.key_or_group}={value}") for value in values]


def _thinned(overrides: list[Override], composer: Composer) -> list[Override]:
    """The first, middle and last choice of a group, after checking that all choices exist; all values of any other key."""
    if not is_group(overrides[0], composer):
        return overrides
    group = overrides[0].key_or_group
    known = {"experiment": EXPERIMENTS, "sweep": SWEEPS}.get(group) or composer.loader.get_group_options(group)
    unknown = {str(override.value()) for override in overrides} - {*known, "null", "None"}
    assert not unknown, f"{group} has no choice {unknown}"
    return [overrides[index] for index in sorted({0, len(overrides) // 2, len(overrides) - 1})]


def is_group(override: Override, composer: Composer) -> bool:
    """Whether ``override`` selects a file of a group."""
    return bool(composer.loader.get_group_options(override.key_or_group)) or override.key_or_group in ("experiment", "sweep")


def without_hydra(config: DictConfig) -> DictConfig:
    """The part of a composed configuration that a job sees."""
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def of_the_configuration(problems: list[Problem]) -> list[Problem]:
    """``problems`` without those of this machine: missing data, devices and accounts."""
    machine = ("trainer.device", "logger.wandb.mode")
    return [
        problem
        for problem in problems
        if problem.key not in machine and not (problem.key == "dataset" and " is not in " in problem.description)
    ]


def folders() -> list[str]:
    """The papers that have experiments or sweeps."""
    return sorted({name.partition("/")[0] for name in chain(EXPERIMENTS, SWEEPS)})
