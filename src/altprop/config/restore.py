"""``run=<directory>``: use the stored configuration of a run instead of one composed from ``conf``.

A run directory may come from somebody else. :func:`read_config` only reads it; before anything is built from it,
:func:`trusted_config` checks what it names (:mod:`altprop.config.trust`).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from altprop.config import extend
from altprop.config.checks.validation import problems_of_plain
from altprop.config.environment import variables_of, with_environment
from altprop.config.key import ADDED_KEYS, is_volatile, run_key
from altprop.config.schema import RootConfig
from altprop.config.trust import KEY as TRUST
from altprop.config.trust import problems_of_run
from altprop.files import read_bytes
from altprop.keys import is_within
from altprop.names import with_public_names
from altprop.problems import ConfigError, Problem
from altprop.reporting.runs import run_directories
from altprop.training.settings import TrainerSettings
from altprop.yaml_files import MAX_BYTES, measure, one_line, values_of

_FROM_THE_COMMAND_LINE = ("run", "resume", "task")
_MAPPINGS = ("dataset", "model", "algorithm", "optimizer", "schedule", "trainer", "paths")
_REQUIRED_KEYS = tuple(field.name for field in dataclasses.fields(RootConfig) if field.name != TRUST)  # which no run stores

UNUSED = {"logger": None, "task": {"_target_": "altprop.tasks.train", "_partial_": True}}
"""What replaces the trackers and the task of a run that is only evaluated, so that nothing of theirs is imported."""


@dataclass(frozen=True)
class Stored:
    """The configuration of a run, with the values of its variables and as it is stored, and the run that it makes longer."""

    config: dict[str, Any]
    shown: dict[str, Any]
    extends: Path | None = None


def stored_config(config: Mapping[str, Any], shown: Mapping[str, Any]) -> Stored:
    """The stored configuration of the run in ``config["run"]``, checked again.

    The command line may change only keys that do not change the run (:data:`altprop.config.key.VOLATILE`), and make a finished
    run longer (:mod:`altprop.config.extend`). Raises ConfigError with every problem.

    Args:
        config: The configuration of the command line.
        shown: The same, as it would be stored (:mod:`altprop.config.environment`).
    """
    directory = find_run(config["run"], Path(config["paths"]["outputs"]))
    read = read_config(directory)
    overrides = overridden_keys()
    if fixed := [key for key in overrides if not is_volatile(key) and key not in (extend.KEY, TRUST)]:
        allowed = f"run={config['run']} resumes with the configuration that it was started with"
        raise ConfigError(Problem(key, "is fixed by the run", allowed, f"leave out {key}=…") for key in fixed)
    replaced = [key for key in {*overrides, *_FROM_THE_COMMAND_LINE} - {extend.KEY, TRUST} if _has(key, config)]
    stored = trusted_config(read, replaced, trust=config[TRUST])
    for key in replaced:
        _copy(key.split("."), config, stored.config)
        _copy(key.split("."), shown, stored.shown)
    outputs = check_place(stored.config, read, directory)
    extends = None
    for each in (stored.config, stored.shown):
        _complete(each, directory)
        each["paths"]["outputs"] = outputs
    if extend.KEY in overrides and config["trainer"]["duration"] != stored.config["trainer"]["duration"]:
        extend.check_extension(stored.config, config["trainer"]["duration"], directory)
        for each in (stored.config, stored.shown):
            each["trainer"]["duration"] = config["trainer"]["duration"]
        extends = directory
    if problems := problems_of_plain(stored.config):
        raise ConfigError(problems)
    return dataclasses.replace(stored, extends=extends)


def trusted_config(read: dict[str, Any], replaced: Collection[str], *, trust: bool) -> Stored:
    """The configuration ``read`` from a run directory, with the values of the variables that it names.

    Args:
        read: What :func:`read_config` returned.
        replaced: Dotted keys that the caller replaces before anything is built.
        trust: Whether the configuration may name anything (``trust_run=true``).

    Raises:
        ConfigError: With everything that it names and may not, before any of it is imported, or with the variables that are not
            set.
    """
    if not trust and (problems := problems_of_run(read, replaced)):
        raise ConfigError(problems)
    missing: list[Problem] = []
    config = with_environment(read, "", missing)
    if missing := [problem for problem in missing if not is_within(problem.key, replaced)]:
        raise ConfigError(missing)
    return Stored(config, deepcopy(read))


def config_to_evaluate(
    directory: Path, *, device: str, threads: int | None = None, data: str | None = None, trust: bool
) -> dict[str, Any]:
    """The configuration of the run in ``directory`` without its trackers and its task, for computing with its trained model.

    Args:
        directory: Absolute path of the run.
        device: Replaces ``trainer.device``.
        threads: Replaces ``trainer.threads``.
        data: Folder of the data sets; None: the one that the run read them from.
        trust: As in :func:`trusted_config`.

    Raises:
        ConfigError: If the directory is not a run, or names what it may not.
    """
    read = read_config(directory)
    replaced = [*UNUSED, "paths.outputs"]
    if data is not None:
        read["paths"] = {**read["paths"], "data": data}
        replaced.append("paths.data")
    config = trusted_config({**read, **UNUSED}, replaced, trust=trust).config
    config["paths"]["outputs"] = check_place(config, read, directory)
    config["trainer"] |= {"device": device, "threads": threads, "cuda_graph": False}
    return config


def check_place(config: Mapping[str, Any], read: Mapping[str, Any], directory: Path) -> str:
    """The folder of runs, whose ``<name>/<key>`` is ``directory``.

    Raises ConfigError if ``config`` does not belong in ``directory``. ``read`` is the same with the names of variables.
    """
    key, name = run_key(config), config["name"]
    if directory.name == key and f"/{directory.parent.as_posix()}".endswith(f"/{name}"):
        return str(directory.parents[len(Path(name).parts)])
    expected = f"it belongs in <outputs>/{name}/{key}"
    if variables := variables_of(read):
        expected += f", unless {', '.join(variables)} had another value in the environment when the run was started"
    raise ConfigError([Problem("run", f"{directory} does not match the configuration in it", expected)])


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
    """The configuration in a run directory. Imports nothing that it names.

    Raises ConfigError if ``config.yaml`` is missing or is not a configuration.
    """
    file = directory / "config.yaml"
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _not_a_run(f"{file} is too large for a configuration")
        text = read_bytes(file).decode()
        measure(text, str(file))
        values = values_of(lambda: OmegaConf.to_container(OmegaConf.load(io.StringIO(text))), str(file))
        stored: Any = with_public_names(values)
    except FileNotFoundError:
        raise _not_a_run(f"{directory} is not a run: it has no config.yaml", "run=<paths.outputs>/<name>/<key>") from None
    except (YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise _not_a_run(f"{file} cannot be read: {one_line(error)}") from None
    if not isinstance(stored, dict):
        raise _not_a_run(f"{file} is not the configuration of a run")
    if missing := [key for key in _REQUIRED_KEYS if key not in stored]:
        raise _not_a_run(f"{file} is not the configuration of a run: {', '.join(missing)} missing")
    wrong = [key for key in _MAPPINGS if not isinstance(stored[key], dict)]
    wrong += [] if isinstance(stored["name"], str) else ["name"]
    wrong += [] if isinstance(stored["seed"], int) else ["seed"]
    if wrong:
        raise _not_a_run(f"{file} is not the configuration of a run: {', '.join(wrong)} has another type")
    return {str(key): value for key, value in stored.items() if key != TRUST}


def _not_a_run(description: str, allowed: str = "the file as altprop wrote it") -> ConfigError:
    return ConfigError([Problem("run", description, allowed)])


def _complete(stored: dict[str, Any], directory: Path) -> None:
    """Add the ``trainer`` keys that were added after the run was started, with values that do not change what it computes."""
    missing = {key: value for key, value in dataclasses.asdict(TrainerSettings()).items() if key not in stored["trainer"]}
    dotted = {key: f"trainer.{key}" for key in missing}
    if significant := [name for name in dotted.values() if name not in ADDED_KEYS and not is_volatile(name)]:
        description = f"{directory} is a run of another version: {', '.join(significant)} missing"
        raise _not_a_run(description, "a run of this version; resume it with the version that started it")
    stored["trainer"] |= {key: ADDED_KEYS.get(dotted[key], value) for key, value in missing.items()}


def overridden_keys() -> list[str]:
    """The dotted keys that the command line of this process overrides."""
    if not HydraConfig.initialized():
        return []
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)  # not resolved: they are what was typed
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    return [key.replace("/", ".") for key in keys]


def _has(key: str, config: Any) -> bool:
    """Whether ``config`` has a value at the dotted ``key``."""
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return False
        config = config[name]
    return True


def _copy(path: list[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Set ``target``'s value at ``path`` to ``source``'s; do nothing if ``source`` lacks the key."""
    for name in path[:-1]:
        if name not in source:
            return
        if not isinstance(target.get(name), dict):
            target[name] = {}
        source, target = source[name], target[name]
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
