"""What a configuration has that nothing would use: root keys that no other value refers to, and folders called ``~``.

Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.descriptions import wrong_type
from altprop.config.command_settings import COMMAND_SETTINGS
from altprop.config.plain import NO_VALUE, UNRESOLVED, to_plain
from altprop.config.project import CONF
from altprop.config.schema import RootConfig
from altprop.config.typed import as_typed
from altprop.keys import walk
from altprop.problems import Problem, nearest

LENGTHS = ("epochs", "max_epochs", "num_epochs", "steps", "max_steps")
"""Names of ``trainer.duration`` in other projects."""
_STARTS = ("ckpt_path", "ckpt", "checkpoint", "resume_from", "resume_from_checkpoint")
"""Names in other projects of what ``run`` does."""


def problems_of_command(config: DictConfig, config_name: str) -> list[Problem]:
    """The problems of a command other than ``train``, whose configuration has no schema.

    These are unused root keys, folders called ``~``, and values of another type or out of range.
    """
    file: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{config_name}.yaml"), resolve=False)
    groups = [name for entry in file.pop("defaults", []) if isinstance(entry, dict) for name in entry if " " not in name]
    own = [*(name for name in file if name != "hydra"), *groups]
    settings = [field.name for field in dataclasses.fields(RootConfig)]  # conf/local/default.yaml may set them for every command
    unused = unused_roots(config, [*own, *(name for name in settings if name not in own)])
    shown = ", ".join(own)
    plain, unresolved = to_plain(config)
    problems = [dataclasses.replace(problem, allowed=f"keys: {shown}") for problem in unused if problem.key not in own]
    # Commands ask for their own missing values, and what Hydra knows of itself (${hydra:…}) is resolved while it runs.
    wrong = [one for one in unresolved if one.description != NO_VALUE and "${hydra:" not in one.description]
    return [*problems, *wrong, *home_folders(plain), *_wrong_settings(plain, config_name)]


def _wrong_settings(plain: Mapping[str, Any], config_name: str) -> Iterator[Problem]:
    """The problem of each key of a command whose value has another type or is out of range."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    for name, hint in get_type_hints(COMMAND_SETTINGS[config_name], include_extras=True).items():
        value = plain.get(name, UNRESOLVED)
        if value is UNRESOLVED:
            continue
        try:
            TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False, strict=True)).validate_python(value)
        except ValidationError:
            yield wrong_type(name, value, hint)


def unused_roots(config: DictConfig, known: Sequence[str], plain: Any = None) -> list[Problem]:
    """The problem of each root key that is not in ``known`` and that no value of ``config`` refers to, with the nearest key.

    ``plain`` are the resolved values, if they are known.
    """
    added = [str(key) for key in config if key not in known and key != "hydra"]
    if not added:
        return []
    raw: Any = OmegaConf.to_container(config, resolve=False)
    references = " ".join(text for _, text in _texts(raw) if "${" in text)
    unused = [key for key in added if not re.search(rf"(?<![\w]){re.escape(key)}(?![\w])", references)]
    return [_unused(key, (plain or raw)[key], known, raw) for key in unused]


def home_folders(plain: Any) -> list[Problem]:
    """The problem of each path that starts with ``~``, which only a shell replaces, and not inside quotes or after ``=``."""
    return [
        Problem(
            key, f"{text} would be in a folder called ~", "a path without ~", f"{key}={as_typed(str(Path(text).expanduser()))}"
        )
        for key, text in _texts(plain)
        if text == "~" or text.startswith("~/")
    ]


def _unused(key: str, value: Any, known: Sequence[str], raw: Any) -> Problem:
    described = "nothing refers to this key"
    text = as_typed(value)
    if nearest(key, [*LENGTHS, *known]) in LENGTHS:
        allowed = "the length of a run has a unit: 10ep epochs or 500st steps"
        return Problem(key, described, allowed, f"trainer.duration={text}{'ep' if text.isdigit() else ''}")
    if key in _STARTS and "run" in known:
        return Problem(key, described, "run=<directory of a run> resumes it", "run=outputs/<name>/<key>")
    elsewhere = {dotted.rpartition(".")[2]: dotted for dotted in reversed(list(_dotted(raw))) if _may_be_meant(dotted, known)}
    near = nearest(key, known) or elsewhere.get(key) or elsewhere.get(nearest(key, elsewhere, 0.75) or "")
    allowed = f"keys: {', '.join(known)}; a key of your own has to be used, as ${{{key}}}"
    shown = "" if isinstance(value, dict) or value is UNRESOLVED else text
    return Problem(key, described, allowed, f"{near}={shown}" if near and shown else near or "")


def _may_be_meant(dotted: str, known: Sequence[str]) -> bool:
    root = dotted.partition(".")[0]
    return root in known and root not in ("cluster", "resources", "hydra")


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            if not str(name).startswith("_"):
                yield f"{prefix}{name}"
                yield from _dotted(child, f"{prefix}{name}.")


def _texts(node: Any) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in walk(node) if isinstance(value, str))
