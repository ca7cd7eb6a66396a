"""Write ``stored/``: the resolved configuration and run key of every experiment, sweep and choice.

``python -m tests.config.store`` adds entries for new files. It never changes an existing entry: runs on disk are found by their
keys, so a difference is usually a mistake. If a change is intended, delete the entry by hand first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from altprop.config.compose import Composer, config_loader
from altprop.config.key import run_key, without_unused_options
from altprop.config.plain import UNRESOLVED, to_plain
from altprop.config.project import CONF
from altprop.names import key_name, with_key_arguments
from tests.config.catalog import EXPERIMENTS, SWEEPS, jobs, without_hydra

STORED = Path(__file__).parent / "stored"
PLACES = ["paths.data=/data", "paths.outputs=/outputs"]
GROUPS = sorted(
    {
        file.parent.relative_to(CONF).as_posix()
        for file in CONF.rglob("*.yaml")
        if file.parent != CONF and file.relative_to(CONF).parts[0] not in ("experiment", "hydra", "local", "paths")
    }
)


def resolved(config: DictConfig) -> dict[str, Any]:
    """``config`` in plain containers, with classes named as in run keys and ``<unresolved>`` for missing values."""

    def readable(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                str(name): key_name(child) if name == "_target_" and isinstance(child, str) else readable(child)
                for name, child in with_key_arguments(value).items()
            }
        if isinstance(value, list):
            return [readable(child) for child in value]
        return "<unresolved>" if value is UNRESOLVED else value

    plain, _ = to_plain(config)
    for name in ("per_gpu", "warm"):  # not stored
        plain["cluster"].pop(name)
    plain.pop("trust_run")  # not stored
    return readable(without_unused_options(plain))  # options that were added after the stored entries


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of ``config``; empty mappings and lists are values."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def changes(config: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``config`` that differ from ``default`` (both flat); ``<absent>`` marks keys that ``config`` lacks."""
    own = {key: value for key, value in config.items() if key not in default or default[key] != value}
    return own | {key: "<absent>" for key in default if key not in config}


def default_configuration(composer: Composer) -> dict[str, Any]:
    """The resolved configuration of ``python train.py``."""
    return flat(resolved(without_hydra(composer.compose("train", PLACES))))


def experiment_entries(composer: Composer, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The key of each experiment and its differences from the default configuration."""
    default = default_configuration(composer)
    for name in names:
        config = resolved(without_hydra(composer.compose("train", [f"experiment={name}", *PLACES])))
        yield name, {"key": run_key(config), "changes": changes(flat(config), default)}


def sweep_entries(composer: Composer, names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The keys of a sweep's jobs (a thinned list, see ``catalog.jobs``)."""
    for name in names:
        entry = {}
        for overrides, config in jobs(name, composer):
            config.paths.data, config.paths.outputs = "/data", "/outputs"
            entry[overrides] = run_key(resolved(config))
        yield name, entry


def choices() -> list[str]:
    """``<group>=<choice>`` of every file in ``conf`` except experiments and groups that do not enter run keys."""
    return [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


def choice_entries(composer: Composer, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The key and the differences of the default configuration with one choice changed."""
    default = default_configuration(composer)
    for name in names:
        try:
            config = composer.compose("train", [name, *PLACES])
        except ConfigCompositionException:  # the default algorithm or model has no such group
            config = composer.compose("train", [f"+{name}", *PLACES])
        values = resolved(without_hydra(config))
        yield name, {"key": run_key(values), "changes": changes(flat(values), default)}


def read(name: str) -> dict[str, Any]:
    """The entries of ``stored/<name>.json``; empty if the file does not exist."""
    file = STORED / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def write(name: str, entries: Mapping[str, Any]) -> None:
    """Write one line per entry, so that a diff shows the files that changed."""
    lines = [f"{json.dumps(key)}: {json.dumps(entries[key], sort_keys=True)}" for key in sorted(entries)]
    (STORED / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    """Add entries for files that do not have one."""
    STORED.mkdir(exist_ok=True)
    with config_loader() as composer:
        tables = (("experiments", EXPERIMENTS, experiment_entries), ("sweeps", SWEEPS, sweep_entries))
        for table, names, entries in (*tables, ("choices", choices(), choice_entries)):
            stored = read(table)
            stored |= dict(entries(composer, [name for name in names if name not in stored]))
            write(table, stored)
        write("default", read("default") or default_configuration(composer))


if __name__ == "__main__":
    main()
