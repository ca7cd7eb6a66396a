"""OmegaConf resolvers for configuration files, such as ``${run_of:<experiment>}``: the directory of an experiment's run.

``${run_of:dsr/mnist_dense}/checkpoints/last.pt`` is the last checkpoint of that experiment with this run's seed. Overrides may
follow, quoted if they need it: ``${run_of:dsr/wrn_dynamic,'algorithm.weights.sparsity=${algorithm.weights.sparsity}'}``. The
directory depends only on what the other run computes, so it is known before that run exists, also in the jobs of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from altprop.config.compose import JobComposer, config_loader
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.config.project import home
from altprop.problems import Problem
from altprop.program import command

_SOURCES = ("weights_from", "mask_from")
_COMMANDS: dict[str, str] = {}
"""Run directory -> the command that trains the run, for every directory resolved in this process."""


def register_resolvers() -> None:
    """Register ``${project_root:}``, ``${run_of:...}``, ``${lookup:...}`` and ``${given:...}`` with OmegaConf."""
    OmegaConf.register_new_resolver("project_root", lambda: str(home()), replace=True)
    OmegaConf.register_new_resolver("run_of", run_of, replace=True)
    OmegaConf.register_new_resolver("lookup", lookup, replace=True)
    OmegaConf.register_new_resolver("given", given_values, replace=True)


def lookup(number: float, table: Mapping[float, object]) -> object:
    """``${lookup:<number>,{<number>: <value>, ...}}``: the value of the equal number in the table, or null.

    Rows use it for settings and published results that depend on a swept number.
    """
    return next((value for key, value in table.items() if float(key) == float(number)), None)


def given_values(*values: object) -> list[object]:
    """``${given:<value>,...}``: the list of the values that are not null."""
    return [value for value in values if value is not None]


def run_of(experiment: str, *overrides: str, _root_: DictConfig) -> str:
    """``<paths.outputs>/<name>/<key>`` of the run that ``experiment``, this run's seed and ``overrides`` describe."""
    words = [f"experiment={experiment}", f"seed={_root_.seed}", *overrides]
    plain, _ = to_plain(deepcopy(_composer().compose(words)))  # a copy, because that run may itself start from another one
    directory = f"{_root_.paths.outputs}/{plain['name']}/{run_key(plain)}"
    _COMMANDS[directory] = f"{command('train')} {' '.join(words)}"
    return directory


@cache
def _composer() -> JobComposer:
    """A composer shared by all seeds, because the runs of a sweep resolve ``run_of`` hundreds of times."""
    running = GlobalHydra.instance().hydra
    try:
        with config_loader() as composer:
            return JobComposer(composer.loader, composer.compose("train", []))
    finally:
        GlobalHydra.instance().hydra = running


def start_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """The paths of other runs and files that a run starts from, by the dotted keys that name them."""
    weights = config["algorithm"].get("weights")
    paths = {f"algorithm.weights.{name}": weights.get(name) for name in _SOURCES} if isinstance(weights, Mapping) else {}
    paths["model.weights_from"] = config["model"].get("weights_from")
    return {key: path for key, path in paths.items() if isinstance(path, str)}


def missing_sources(config: Mapping[str, Any], directory: Path) -> Iterator[Problem]:
    """The problems of checkpoints of other runs that the run in ``directory`` starts from and that do not exist.

    A run that has begun has already copied what it needs, so it resumes without them.
    """
    if (directory / "checkpoints").exists():
        return
    for key, path in start_sources(config).items():
        if not Path(path).exists():
            command = next((text for folder, text in _COMMANDS.items() if f"{path}/".startswith(f"{folder}/")), "")
            allowed = "the directory or the checkpoint of a finished run" if not command else "train that run first"
            yield Problem(key, f"{path} does not exist", allowed, command)
