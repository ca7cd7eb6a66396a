"""The experiment and sweep files, and what their jobs are."""

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
    """The lines of an experiment or sweep file and what it says."""
    file = (CONF / "experiment" if group == "experiment" else ROOT / "sweeps") / f"{name}.yaml"
    return file.read_text().splitlines(), OmegaConf.to_container(OmegaConf.load(file))


def sweep_params(name: str) -> dict[str, Any]:
    """``hydra.sweeper.params`` of a sweep file."""
    _, said = content("sweep", name)
    return said["hydra"]["sweeper"]["params"]


def jobs(name: str, composer: Composer) -> Iterator[tuple[str, DictConfig]]:
    """Jobs of a sweep in which every value of every key occurs, and three choices of every group: not the whole product.

    Composing is slow, so it is done once for each choice of groups; single values are set afterwards.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    values = [_thinned(_values(f"{key}={value}", composer), composer) for key, value in sweep_params(name).items()]
    for index in range(max(len(choices) for choices in values)):
        job = [choices[index % len(choices)] for choices in values]
        groups = tuple(str(override.input_line) for override in job if is_group(override, composer))
        if groups not in composed:
            composed[groups] = without_hydra(composer.compose("train", [f"sweep={name}", *groups]))
        config = copy.deepcopy(composed[groups])
        for override in job:
            if not is_group(override, composer):
                OmegaConf.update(config, override.key_or_group, override.value())
        yield " ".join(str(override.input_line) for override in job), config


def _values(text: str, composer: Composer) -> list[Override]:
    """One override for each value of a swept one, and for both ends of an interval."""
    parser = OverridesParser.create(composer.loader)
    override = parser.parse_override(text)
    if not override.is_sweep_override():
        return [override]
    sweep = override.value()
    values = [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else override.sweep_string_iterator()
    return [parser.parse_override(f"{override.key_or_group}={value}") for value in values]


def _thinned(overrides: list[Override], composer: Composer) -> list[Override]:
    """The first, middle and last of a group's choices, all of which must exist; all values of anything else."""
    if not is_group(overrides[0], composer):
        return overrides
    group = overrides[0].key_or_group
    known = {"experiment": EXPERIMENTS, "sweep": SWEEPS}.get(group) or composer.loader.get_group_options(group)
    unknown = {str(override.value()) for override in overrides} - {*known, "null", "None"}
    assert not unknown, f"{group} has no choice {unknown}"
    return [overrides[index] for index in sorted({0, len(overrides) // 2, len(overrides) - 1})]


def is_group(override: Override, composer: Composer) -> bool:
    """Whether ``override`` chooses among files."""
    return bool(composer.loader.get_group_options(override.key_or_group)) or override.key_or_group in ("experiment", "sweep")


def without_hydra(config: DictConfig) -> DictConfig:
    """What a job sees of a composed configuration."""
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def of_the_configuration(problems: list[Problem]) -> list[Problem]:
    """Without what depends on this machine: data that was not fetched, devices and accounts that it has not."""
    machine = ("trainer.device", "logger.wandb.mode")
    return [
        problem
        for problem in problems
        if problem.key not in machine and not (problem.key == "dataset" and " is not in " in problem.description)
    ]


def folders() -> list[str]:
    """The papers that have experiments or sweeps."""
    return sorted({name.partition("/")[0] for name in chain(EXPERIMENTS, SWEEPS)})
