"""Configuration checks of the keys that all data sets share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from altprop.problems import Problem
from altprop.program import command


def check_loading(config: Mapping[str, Any], channels: int | None) -> Iterator[Problem]:
    """Yield a problem for each batch size, limit or normalization constant out of range."""
    for key in ("batch_size", "eval_batch_size", "limit_train", "limit_test"):
        value = config.get(key)
        if isinstance(value, int) and value < 1:
            yield Problem(f"dataset.{key}", str(value), "1 or more, or null" if key.startswith("limit") else "1 or more")
    for key in ("mean", "std"):
        values = config.get(key)
        if not isinstance(values, (list, tuple)) or not all(isinstance(value, (int, float)) for value in values):
            continue
        if len(values) != 1 and len(values) != (channels or len(values)):
            yield Problem(f"dataset.{key}", f"{len(values)} values", f"one value, or one for each of the {channels} channels")
        if key == "std" and any(value <= 0 for value in values):
            yield Problem("dataset.std", str(list(values)), "values above 0, in units of [0, 1]")


def check_validation_size(config: Mapping[str, Any], num_train: int | None, title: str) -> Iterator[Problem]:
    """Yield a problem if the validation split would take all training images."""
    size = (config.get("validation") or {}).get("size", 0)
    if num_train is not None and isinstance(size, (int, float)) and size >= num_train > 0:
        yield Problem("dataset.validation.size", f"{size:g}", f"fewer than the {num_train:,} training images of {title}")


def data_root(root: Mapping[str, Any]) -> Path:
    """Return ``paths.data`` of a resolved configuration."""
    return Path(root["paths"]["data"])


def missing_files(title: str, folder: Path, layout: str, fix: str) -> Problem:
    """Return the problem of a data set that is not in ``folder``: the layout expected there, and the command that fixes it."""
    return Problem("dataset", f"{title} is not in {folder}", f"expected: {layout}", fix)


def fetch_command(name: str, root: Path) -> str:
    """Return the command that downloads the data set ``name`` to ``root``."""
    return f"{command('data')} action=fetch dataset={name} paths.data={root}"
