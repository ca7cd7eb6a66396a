"""Build objects from a composed configuration. Nothing below this module sees a ``DictConfig``."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.validation import plain_and_valid
from altprop.config.environment import without_environment
from altprop.config.key import run_key
from altprop.config.resolvers import missing_sources, start_sources
from altprop.config.restore import stored_config
from altprop.config.trust import KEY as TRUST
from altprop.nn.metrics.base import Metric
from altprop.problems import ConfigError, Problem, message_of
from altprop.training.parts import Parts
from altprop.training.settings import EarlyStopping, TrainerSettings

Task = Callable[[Parts], object]


def build(config: DictConfig) -> tuple[Parts, Task]:
    """Build the parts of the run that ``config`` describes and the task to run with them.

    With ``run=<directory>`` the stored configuration of that run replaces ``config``. Raises ConfigError with every problem;
    nothing that a run directory may not name is imported.
    """
    plain = plain_and_valid(config)
    shown = without_environment(config, plain)
    extends = None
    if plain["run"] is not None:
        stored = stored_config(plain, shown)
        plain, shown, extends = stored.config, stored.shown, stored.extends
    elif plain[TRUST]:
        raise ConfigError([Problem(TRUST, "there is no run to trust", "only with run=<directory>", f"{TRUST}=false")])
    elif missing := list(missing_sources(plain, Path(plain["paths"]["outputs"]) / plain["name"] / run_key(plain))):
        raise ConfigError(missing)
    task = _instantiate(plain, "task")
    return replace(build_parts(plain, shown), extends=extends), task


def build_parts(config: Mapping[str, Any], shown: Mapping[str, Any] | None = None) -> Parts:
    """Build the parts of a valid, resolved configuration in plain containers.

    ``shown`` is the configuration as it is stored, with the names of variables instead of their values; None if it has none.
    """
    shown = {name: value for name, value in (shown or config).items() if name != TRUST}  # a run cannot ask for trust
    model = config["model"]
    return Parts(
        data_set=_instantiate(config, "dataset"),
        model_factory=_instantiate({"model": {name: value for name, value in model.items() if name != "weights_from"}}, "model"),
        algorithm=_instantiate(config, "algorithm"),
        optimizer_factory=_instantiate(config, "optimizer"),
        schedule=_instantiate(config, "schedule"),
        trackers={
            name: _instantiate(config["logger"], name, "logger.")
            for name, node in (config["logger"] or {}).items()
            if node is not None
        },
        settings=trainer_settings(config["trainer"]),
        data_root=Path(config["paths"]["data"]).absolute(),
        outputs=Path(config["paths"]["outputs"]).absolute(),
        name=config["name"],
        key=run_key(config),
        seed=config["seed"],
        group=shown["group"] or config["name"],
        tags=tuple(shown["tags"]),
        resume=config["resume"],
        config=shown,
        config_text=OmegaConf.to_yaml(OmegaConf.create(shown)),
        paper=shown["paper"],
        sources=start_sources(config),
        metrics={name: Metric(name, _instantiate(config["metrics"], name, "metrics.")) for name in config.get("metrics") or {}},
    )


def trainer_settings(node: Mapping[str, Any]) -> TrainerSettings:
    """The node ``trainer`` of a configuration as its dataclass."""
    stopping = node.get("early_stopping")
    return TrainerSettings(**{**node, "early_stopping": None if stopping is None else EarlyStopping(**stopping)})


def _raised_by_a_library(error: BaseException) -> bool:
    """Whether ``error`` comes from an installed package such as torch, so that it is about the values that it was given."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "site-packages" in frames[-1].filename and not isinstance(error, ImportError)


def _instantiate(config: Mapping[str, Any], name: str, prefix: str = "") -> Any:
    try:
        return instantiate(config[name], _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        if isinstance(cause, ValueError) or (cause is not None and _raised_by_a_library(cause)):  # a constructor refused a value
            full_key = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
            key = f"{prefix}{name}.{full_key}" if full_key else f"{prefix}{name}"
            raise ConfigError([Problem(key, message_of(cause), "see its file in conf/")]) from error
        if cause is None:  # Hydra itself refuses targets that run commands or delete files
            raise ConfigError(
                [Problem(f"{prefix}{name}", message_of(error), "a class of altprop, of torch or of your own")]
            ) from error
        raise
