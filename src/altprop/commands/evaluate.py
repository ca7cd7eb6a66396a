"""The command ``evaluate.py``: evaluate a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from altprop.config.build import build_parts
from altprop.config.checks.validation import problems_of_plain
from altprop.config.restore import config_to_evaluate, find_run, overridden_keys
from altprop.config.trust import KEY as TRUST
from altprop.problems import ConfigError, Problem


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
    if options["run"] == "???":
        raise ConfigError([Problem("run", "is missing", "the directory of a run", "run=outputs/latest")])
    paths = options["paths"]
    return config_to_evaluate(
        find_run(options["run"], Path(paths["outputs"])),
        device=options["device"],
        threads=options["threads"],
        data=paths["data"] if {"paths", "paths.data"} & set(overridden_keys()) else None,
        trust=options[TRUST],
    )
