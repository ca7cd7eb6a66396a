"""The folders that configurations are read from: altprop's own, and those of installed packages that add to it.

A package adds its folder with an entry point of the group ``altprop.configs`` whose value is the folder as a dotted path
(docs/own_package.md). Nothing of the package is imported to find the folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from altprop.names import ENTRY_POINTS, announced_folders
from altprop.problems import ConfigError, Problem
from altprop.program import CHECKOUT, PACKAGE

CONF = (PACKAGE / "conf").resolve()
"""altprop's configuration files: ``conf`` of the checkout, or the copy inside the installed package."""
ROOT = CONF.parent
"""The folder that contains :data:`CONF`: in a checkout the project's folder."""
CONFIG_MODULE = "altprop.conf"
"""The same folder for Hydra's ``initialize_config_module``."""


@dataclass(frozen=True)
class OwnPackage:
    """An installed package that adds configuration files to altprop's.

    Args:
        name: Name of its entry point.
        module: Its top-level module.
        folder: Its configuration folder, with the same groups as ``conf``.
    """

    name: str
    module: str
    folder: Path


def home() -> Path:
    """The folder below which ``data`` and ``outputs`` are by default: the checkout, or the current folder if there is none."""
    return CHECKOUT or Path.cwd()


@cache
def own_packages() -> tuple[OwnPackage, ...]:
    """The installed packages that announce a configuration folder, in the order of their names.

    Raises ConfigError if a folder does not exist, or if a file in it would never be read because altprop has one of that name.
    """
    packages = {}
    for point in announced_folders():
        module, *parts = point.value.partition(":")[0].split(".")
        places = [place.joinpath(*parts) for place in module_folders(module)]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            description = f"the entry point {point.name} names {point.value!r}, which is not a folder of an installed package"
            allowed = "the dotted path of a folder with YAML files, such as mypackage.conf"
            raise ConfigError([Problem(ENTRY_POINTS, description, allowed, f"pip uninstall {_distribution(point)}")])
        packages[folder] = OwnPackage(point.name, module, folder)
    if hidden := [problem for package in packages.values() for problem in _hidden_files(package)]:
        raise ConfigError(hidden)
    return tuple(packages.values())


def _hidden_files(package: OwnPackage) -> Iterator[Problem]:
    for file in sorted(package.folder.rglob("*.yaml")):
        name = file.relative_to(package.folder)
        if name.parts[0] != "local" and (CONF / name).is_file():
            description = f"{name} of {package.name} would never be read: altprop has a file of that name"
            yield Problem(ENTRY_POINTS, description, "a name that altprop does not use", f"rename {file}")


def module_folders(module: str) -> list[Path]:
    """The folders of the top-level package ``module``, without importing it; several if it is a namespace package."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []


def config_folders() -> list[Path]:
    """Every folder whose configuration files count: altprop's own and those of installed packages, in order of precedence."""
    return [CONF, *(package.folder for package in own_packages())]


def config_files(group: str) -> Iterator[Path]:
    """The YAML files of ``group``, each choice once."""
    seen = set()
    for folder in config_folders():
        for file in sorted((folder / group).glob("*.yaml")):
            if file.stem not in seen:
                seen.add(file.stem)
                yield file


def _distribution(point: object) -> str:
    distribution = getattr(point, "dist", None)
    return str(getattr(distribution, "name", "<package>"))
