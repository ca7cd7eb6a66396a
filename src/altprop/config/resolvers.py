"""OmegaConf resolvers for configuration files, such as ``${run_of:<experiment>}``: the directory of an experiment's run.

``${run_of:dsr/mnist_dense}/checkpoints/last.pt`` is the last checkpoint of that experiment with this run's seed. Overrides may
follow, quoted where they need it: ``${run_of:dsr/wrn_dynamic,'algorithm.weights.sparsity=${algorithm.weights.sparsity}'}``. The
directory follows from what the other run computes, so it is known before that run exists, also to the jobs of a cluster.
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
from altprop.config.project import ROOT
from altprop.problems import Problem

_SOURCES = ("weights_from", "mask_from")
_COMMANDS: dict[str, str] = {}
"""What trains the run in a directory that was resolved in this process."""


def register_resolvers() -> None:
    """Make ``${project_root:}``, ``${run_of:...}``, ``${lookup:...}`` and ``${given:...}`` known to OmegaConf."""
    OmegaConf.register_new_resolver("project_root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("run_of", run_of, replace=True)
    OmegaConf.register_new_resolver("lookup", lookup, replace=True)
    OmegaConf.register_new_resolver("given", given, replace=True)


def lookup(number: float, table: Mapping[float, object]) -> object:
    """``${lookup:<number>,{<number>: <value>, ...}}``: the value of the equal number, or null.

    For settings and published results of a row that depend on a number that is swept over.
    """
    return next((value for key, value in table.items() if float(key) == float(number)), None)


def given(*values: object) -> list[object]:
    """``${given:<value>,...}``: the list of the values that are not null."""
    return [value for value in values if value is not None]


def run_of(experiment: str, *overrides: str, _root_: DictConfig) -> str:
    """``<paths.outputs>/<name>/<key>`` of the run that ``experiment``, this run's seed and ``overrides`` describe."""
    words = [f"experiment={experiment}", f"seed={_root_.seed}", *overrides]
    plain, _ = to_plain(deepcopy(_composer().compose(words)))  # a copy, because that run may start from another one, too
    directory = f"{_root_.paths.outputs}/{plain['name']}/{run_key(plain)}"
    _COMMANDS[directory] = f"python train.py {' '.join(words)}"
    return directory


@cache
def _composer() -> JobComposer:
    """Composes once for all seeds: the runs of a sweep resolve this by the hundred."""
    running = GlobalHydra.instance().hydra
    try:
        with config_loader() as composer:
            return JobComposer(composer.loader, composer.compose("train", []))
    finally:
        GlobalHydra.instance().hydra = running


def missing_sources(config: Mapping[str, Any], directory: Path) -> Iterator[Problem]:
    """Checkpoints of other runs that the run to be started in ``directory`` needs and that do not exist.

    A run that has begun has taken over what it needs, so it goes on without them.
    """
    weights = config["algorithm"].get("weights")
    if not isinstance(weights, Mapping) or (directory / "checkpoints").exists():
        return
    for name in _SOURCES:
        path = weights.get(name)
        if isinstance(path, str) and not Path(path).is_file():
            command = next((text for folder, text in _COMMANDS.items() if path.startswith(f"{folder}/")), "")
            allowed = "the checkpoint of a run that has finished" if not command else "that run has to be trained first"
            yield Problem(f"algorithm.weights.{name}", f"there is no {path}", allowed, command)
