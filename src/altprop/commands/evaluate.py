"""The command ``evaluate.py``: evaluate a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from altprop.config.build import build_parts
from altprop.config.checks.validation import problems_of_plain
from altprop.config.restore import UNUSED, check_place, find_run, overridden_keys, read_config, trusted_config
from altprop.config.trust import KEY as TRUST
from altprop.problems import ConfigError, Problem

CHOICES = {"split": ("test", "validation", "train"), "checkpoint": ("auto", "last", "best")}
SETTINGS = ("device", "threads")


def evaluate(config: DictConfig) -> None:
    """Evaluate the run that ``config.run`` names, print one line and store the result in the run's directory."""
    result = evaluation_of(config)
    from altprop.training.evaluate_run import summary

    print(summary(result))


def evaluation_of(config: DictConfig) -> dict[str, Any]:
    """Evaluate the run that ``config.run`` names and store the result in the run's directory. Returns the result."""
    options = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=False))
    stored = _stored(options)
    other_data, added = options.get("dataset"), options.get("metrics")
    changed = stored if other_data is None else {**stored, "dataset": other_data}
    if added is not None:
        changed = {**changed, "metrics": {**(stored.get("metrics") or {}), **added} if isinstance(added, dict) else added}
    if problems := problems_of_plain(changed):
        raise ConfigError(problems)

    from altprop.training.evaluate_run import Evaluation, evaluate_run
    from altprop.training.isolation import isolated

    parts = build_parts(stored)
    new = build_parts(changed)
    parts = replace(parts, metrics=new.metrics)
    other = None if other_data is None else new.data_set
    evaluation = Evaluation(
        split=options["split"],
        checkpoint=options["checkpoint"],
        data_set=other,
        data_name=None if other is None else type(other).__name__,
        limit_batches=options["limit_batches"],
        figures=options["figures"],
    )
    with isolated():
        return evaluate_run(parts, evaluation)


def _stored(options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the run, with the device of this command line.

    The data are read from where the run read them, unless the command line says otherwise. Raises ConfigError if the directory is
    not a run, or names what it may not.
    """
    problems = [
        Problem(key, f"is {options[key]!r}", f"must be {' or '.join(choices)}", f"{key}={choices[0]}")
        for key, choices in CHOICES.items()
        if options[key] not in choices
    ]
    if options["run"] == "???":
        problems.append(Problem("run", "is missing", "the directory of a run", "run=outputs/latest"))
    if problems:
        raise ConfigError(problems)
    directory = find_run(options["run"], Path(options["paths"]["outputs"]))
    read = read_config(directory)
    replaced = [*UNUSED, "paths.outputs"]
    if {"paths", "paths.data"} & set(overridden_keys()):
        replaced.append("paths.data")
        read["paths"] = {**read["paths"], "data": options["paths"]["data"]}
    stored = trusted_config({**read, **UNUSED}, replaced, trust=options[TRUST]).config
    stored["paths"]["outputs"] = check_place(stored, read, directory)
    stored["trainer"] = {**stored["trainer"], **{name: options[name] for name in SETTINGS}, "cuda_graph": False}
    return stored
