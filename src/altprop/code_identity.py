"""Which code made a run: version, commit and content of altprop and of every package that its configuration names."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from altprop.code_state import code_state
from altprop.names import targets_in

LIBRARIES = frozenset({"torch", "torchvision", "torchmetrics", "numpy", "hydra_plugins"})
"""Packages whose versions are recorded elsewhere in ``meta.json``."""


def code_identity(config: Mapping[str, Any], own_state: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The code behind a run with the resolved ``config``, by top-level package.

    Each entry holds the installed ``version`` (None if the package is not installed), the git ``commit`` (None outside a
    repository), whether the working tree was ``dirty``, and ``content``: twelve hexadecimal digits of a hash of the package's
    Python files, which decide whether two runs come from the same code. ``own_state`` is altprop's own state in git, if the
    caller has asked for it already.
    """
    packages = dict.fromkeys(["altprop", *(target.partition(".")[0] for target in targets_in(config))])
    identity = {}
    for package in packages:
        folder = None if package in LIBRARIES else _location(package)
        if folder is not None:
            state = own_state if package == "altprop" else None
            if state is None:
                state, _ = code_state(folder if folder.is_dir() else folder.parent)
            identity[package] = {
                "version": _version(package),
                "commit": state and state["commit"],
                "dirty": state and state["dirty"],
                "content": _content(folder),
            }
    return identity


def describe(entry: Mapping[str, Any]) -> str:
    """One package's code in words: ``commit 1bfe4ae12c (content 9f86d081884c)``."""
    commit = f"commit {entry['commit'][:10]} " if entry.get("commit") else f"version {entry.get('version') or 'unknown'} "
    return f"{commit}(content {entry['content']})"


def code_differences(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What differs between two identities, one phrase per package; empty if all contents are equal or unknown."""
    return [
        f"{package} was {describe(before[package])} and is {describe(entry)}"
        for package, entry in now.items()
        if package in before and before[package].get("content") != entry["content"]
    ]


def _location(package: str) -> Path | None:
    """The folder or the file of a top-level package; None if it has no Python source."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _content(location: Path) -> str:
    """A hash of the names and contents of all Python files in ``location``, or of that file."""
    files = [location] if location.is_file() else sorted(location.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(location.parent)).encode() + b"\0")
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None
