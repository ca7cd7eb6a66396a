"""Runs that start from other runs: ``${run_of:<experiment>}`` is the directory of the run of an experiment.

``${run_of:dsr/mnist_dense}/checkpoints/last.pt`` is the last checkpoint of that experiment with this run's seed. Overrides may
follow, quoted where they need it: ``${run_of:dsr/wrn_dynamic,'algorithm.weights.sparsity=${algorithm.weights.sparsity}'}``. The
directory follows from what the other run computes, so it is known before that run exists, also to the jobs of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from altprop.problems import Problem

if TYPE_CHECKING:
    from altprop.config.sweeping.composing import JobComposer

_SOURCES = ("weights_from", "mask_from")
_COMMANDS: dict[str, str] = {}
"""What trains the run in a directory that was resolved in this process."""


def run_of(experiment: str, *overrides: str, _root_: DictConfig) -> str:
    """``<paths.outputs>/<name>/<key>`` of the run that ``experiment``, this run's seed and ``overrides`` describe."""
    from altprop.config.key import run_key
    from altprop.config.plain import to_plain

    words = [f"experiment={experiment}", f"seed={_root_.seed}", *overrides]
    plain, _ = to_plain(deepcopy(_composer().compose(words)))  # a copy, because that run may start from another one, too
    directory = f"{_root_.paths.outputs}/{plain['name']}/{run_key(plain)}"
    _COMMANDS[directory] = f"python train.py {' '.join(words)}"
    return directory


@cache
def _composer() -> JobComposer:
    """Composes once for all seeds: the runs of a sweep resolve this by the hundred."""
    from altprop.config.compose import config_loader
    from altprop.config.sweeping.composing import JobComposer

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
