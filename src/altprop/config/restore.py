"""``run=<directory>``: use the stored configuration of a run instead of one composed from ``conf``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from altprop.config import extend
from altprop.config.checks.validation import problems_of_plain
from altprop.config.key import is_volatile, run_key
from altprop.config.schema import RootConfig
from altprop.names import with_public_names
from altprop.problems import ConfigError, Problem
from altprop.reporting.runs import run_directories
from altprop.training.settings import TrainerSettings

_FROM_THE_COMMAND_LINE = ("run", "resume", "task")
_REQUIRED_KEYS = tuple(field.name for field in dataclasses.fields(RootConfig))


def stored_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The stored configuration of the run in ``config["run"]``, checked again, and the run that it makes longer, if any.

    The command line may change only keys that do not change the run (:data:`altprop.config.key.VOLATILE`), and make a finished
    run longer (:mod:`altprop.config.extend`). Raises ConfigError with every problem.
    """
    directory = find_run(config["run"], Path(config["paths"]["outputs"]))
    stored = read_config(directory)
    overrides = overridden_keys()
    if fixed := [key for key in overrides if not is_volatile(key) and key != extend.KEY]:
        allowed = f"run={config['run']} resumes with the configuration that it was started with"
        raise ConfigError(Problem(key, "is fixed by the run", allowed, f"leave out {key}=…") for key in fixed)
    for key in {*overrides, *_FROM_THE_COMMAND_LINE} - {extend.KEY}:
        _copy(key.split("."), config, stored)
    key = run_key(stored)
    if directory.parts[-1] != key or not f"/{directory.parent.as_posix()}".endswith(f"/{stored['name']}"):
        expected = f"<outputs>/{stored['name']}/{key}"
        raise ConfigError([Problem("run", f"{directory} does not match the configuration in it", f"it belongs in {expected}")])
    _complete(stored, directory)
    extended = None
    if extend.KEY in overrides and config["trainer"]["duration"] != stored["trainer"]["duration"]:
        extend.check_extension(stored, config["trainer"]["duration"], directory)
        stored["trainer"]["duration"] = config["trainer"]["duration"]
        extended = directory
    stored["paths"]["outputs"] = str(directory.parents[len(Path(stored["name"]).parts)])
    if problems := problems_of_plain(stored):
        raise ConfigError(problems)
    return stored, extended


def find_run(text: str, outputs: Path) -> Path:
    """The directory of the run that ``run=<text>`` names: its path, ``<name>/<key>`` below ``outputs``, or its key.

    Raises ConfigError if several runs have this key. If there is no run, this is the path as it was typed.
    """
    for path in (Path(text), outputs / text):
        if (path / "config.yaml").exists():
            return path.resolve()  # outputs/latest is a link
    if text and not Path(text).exists() and "/" not in text:
        found = [directory for directory in run_directories(outputs) if directory.name == text]
        if len(found) > 1:
            shown = ", ".join(f"{directory.parent.relative_to(outputs)}/{text}" for directory in found)
            raise _not_a_run(f"several runs have the key {text}", f"one of {shown}")
        if found:
            return found[0].resolve()
    return Path(text).resolve()


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration in a run directory. Raises ConfigError if ``config.yaml`` is missing or is not a configuration."""
    file = directory / "config.yaml"
    try:
        stored = with_public_names(OmegaConf.to_container(OmegaConf.load(file)))
    except FileNotFoundError:
        raise _not_a_run(f"{directory} is not a run: it has no config.yaml", "run=<paths.outputs>/<name>/<key>") from None
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise _not_a_run(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(stored, dict):
        raise _not_a_run(f"{file} is not the configuration of a run")
    if missing := [key for key in _REQUIRED_KEYS if key not in stored]:
        raise _not_a_run(f"{file} is not the configuration of a run: {', '.join(missing)} missing")
    return {str(key): value for key, value in stored.items()}


def _not_a_run(description: str, allowed: str = "the file as altprop wrote it") -> ConfigError:
    return ConfigError([Problem("run", description, allowed)])


def _complete(stored: dict[str, Any], directory: Path) -> None:
    """Add the defaults of ``trainer`` keys that are newer than the run, if they do not change what it computes."""
    missing = {key: value for key, value in dataclasses.asdict(TrainerSettings()).items() if key not in stored["trainer"]}
    if significant := [f"trainer.{key}" for key in missing if not is_volatile(f"trainer.{key}")]:
        description = f"{directory} is a run of another version: {', '.join(significant)} missing"
        raise _not_a_run(description, "a run of this version; resume it with the version that started it")
    stored["trainer"] |= missing


def overridden_keys() -> list[str]:
    """The dotted keys that the command line of this process overrides."""
    if not HydraConfig.initialized():
        return []
    keys = [override.partition("=")[0].lstrip("+~") for override in HydraConfig.get().overrides.task]
    return [key.replace("/", ".") for key in keys]


def _copy(path: list[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Set ``target``'s value at ``path`` to ``source``'s; do nothing if ``source`` lacks the key."""
    for name in path[:-1]:
        if name not in source:
            return
        source, target = source[name], target.setdefault(name, {})
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
