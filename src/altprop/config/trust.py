"""What the configuration in a run directory may name (docs/trust.md).

Building a configuration imports and calls what it names, so a run directory of somebody else could run any code. A stored
configuration may therefore name only classes that can do nothing but train and evaluate:

- what a configuration file of altprop, of an installed package that announced itself, or of a folder of this command names;
- classes of altprop's public packages, of those installed packages, of ``torch.nn``, ``torch.optim`` and of torchmetrics that
  are models, optimizers, algorithms and so on (:data:`KINDS`).

Names are checked first, without importing anything; only then are the classes of allowed places imported and looked at.
"""

from __future__ import annotations

import functools
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from altprop.algorithms.base import Algorithm
from altprop.algorithms.schedule import Schedule
from altprop.config.environment import DECODED, VARIABLE
from altprop.config.project import config_folders, own_packages
from altprop.data.sets.image_set import ImageSet
from altprop.keys import is_within, walk
from altprop.names import FOLDERS, definitions, public_name
from altprop.nn.estimators.base import Estimator
from altprop.nn.weights.base import WeightsRule
from altprop.problems import Problem
from altprop.tracking.base import Tracker

KEY = "trust_run"
"""The switch that allows everything. Only a command line can set it, never the run directory."""
KINDS = (Algorithm, Estimator, ImageSet, LRScheduler, Optimizer, Schedule, Tracker, WeightsRule, nn.Module)
"""What a class must derive from if no configuration file names it."""
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch.nn": ("torch.nn.modules",),
    "torch.optim": ("torch.optim",),
    "torch.optim.lr_scheduler": ("torch.optim.lr_scheduler",),
    "torchmetrics": ("torchmetrics.classification", "torchmetrics.aggregation", "torchmetrics.regression"),
    "torchmetrics.classification": ("torchmetrics.classification",),
    "torchmetrics.regression": ("torchmetrics.regression",),
}
"""Package of a library -> where the classes must be defined that a configuration may name in it."""
CLOSED = ("altprop.tasks", "altprop.sweeping", "hydra_plugins")
"""Packages whose functions decide what a command does. Only the command itself names them."""
SENT = "logger"
"""The key whose values trackers send to other machines."""
_WORDS = ("_args_", "_recursive_", "_convert_")
_TARGET = re.compile(r"^[^#\n]*?_target_['\"]?\s*:\s*['\"]?([A-Za-z_][\w.]*)", re.MULTILINE)
_NAME = r"[A-Za-z_]\w*"
ALLOWED = (
    "classes of altprop, torch.nn, torch.optim, torchmetrics and installed packages that announce themselves (docs/trust.md); "
    "if you know who wrote its config.yaml, allow everything"
)


def problems_of_run(config: Any, replaced: Collection[str] = ()) -> list[Problem]:
    """What the stored configuration of a run names and may not. Imports nothing unless every name is of an allowed place.

    Args:
        config: The configuration in plain containers, with public names.
        replaced: Dotted keys that the command replaces, so that their values do not count.
    """
    problems: list[Problem] = []
    targets: dict[str, str] = {}
    for key, value in walk(config):
        if is_within(key, replaced):
            continue
        if isinstance(value, Mapping):
            problems += [_refused(f"{key}.{word}", f"sets {word}") for word in _WORDS if word in value]
            if "_target_" in value and f"{key}._target_" not in replaced:
                path = value["_target_"]
                if isinstance(path, str) and _is_of_allowed_place(path):
                    targets[key] = path
                else:
                    problems.append(_refused(f"{key}._target_", f"names {path}"))
        elif isinstance(value, str) and "${" in value:
            problems += _problems_of_interpolation(key, value)
    if problems:
        return problems
    return [_refused(f"{key}._target_", f"names {path}") for key, path in targets.items() if not _is_allowed(path)]


def _problems_of_interpolation(key: str, text: str) -> Iterator[Problem]:
    """A stored configuration is resolved, so all that it may refer to are variables of the environment."""
    root = key.partition(".")[0].partition("[")[0]
    if not DECODED.fullmatch(text) and "${" in VARIABLE.sub("", text):
        yield _refused(key, f"refers to {text}")
    elif root == SENT:
        allowed = f"variables outside {SENT}; if you know who wrote its config.yaml, allow everything"
        yield _refused(key, f"sends {text} of your environment to a tracker", allowed)


def _refused(key: str, description: str, allowed: str = ALLOWED) -> Problem:
    return Problem(key, f"{description}, which a run directory may not", allowed, f"{KEY}=true")


def _is_of_allowed_place(path: str) -> bool:
    """Whether the dotted ``path`` is in a place whose modules may be imported."""
    if any(path.startswith(f"{package}.") for package in CLOSED) or not re.fullmatch(rf"{_NAME}(\.{_NAME})+", path):
        return False
    package, _, name = path.rpartition(".")
    if _is_named_in_files(path) or package in LIBRARIES:
        return True
    if package in FOLDERS:
        return len(definitions(package).get(name, ())) == 1
    return path.partition(".")[0] in _announced()


def _is_allowed(path: str) -> bool:
    """Whether the object at ``path``, which is of an allowed place, is named in a file or is a class of one of :data:`KINDS`."""
    if _is_named_in_files(path):
        return True
    try:
        target = pkgutil.resolve_name(path)
    except Exception:  # does not exist, which the checks of the configuration report, or its package cannot be imported
        return path.rpartition(".")[0] in (*LIBRARIES, *FOLDERS)
    if not isinstance(target, type) or not issubclass(target, KINDS):
        return False
    package, _, _ = path.rpartition(".")
    homes = LIBRARIES.get(package) or FOLDERS.get(package) or (path.partition(".")[0],)
    return any(target.__module__ == home or target.__module__.startswith(f"{home}.") for home in homes)


@functools.cache
def _announced() -> frozenset[str]:
    return frozenset(package.module for package in own_packages())


def _is_named_in_files(path: str) -> bool:
    return any(path in _named_in(folder) for folder in (*config_folders(), *_folders_of_command()))


def _folders_of_command() -> list[Path]:
    """The folders of ``--config-dir`` and ``hydra.searchpath``."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file" and source.path]


@functools.cache
def _named_in(folder: Path) -> frozenset[str]:
    """Every ``_target_`` in the YAML files below ``folder``, as a public name."""
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in folder.rglob("*.yaml"))
    return frozenset(public_name(path) for text in texts for path in _TARGET.findall(text))
