"""What a run started from: the files of other runs or published weights, recorded in ``parent.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from altprop.files import read_json
from altprop.nn.weights.saved_run import checkpoint_file
from altprop.problems import ConfigError
from altprop.tracking.parent_file import sources_of, write_parent
from altprop.tracking.status_file import read_status


def record_ancestry(sources: Mapping[str, str], directory: Path, outputs: Path) -> None:
    """Record what a run that starts now takes over: each file, its SHA-256 and, if it belongs to a run, that run and its code.

    ``sources`` are the paths by configuration key.
    """
    if sources:
        write_parent(directory, {"sources": [describe(key, path, outputs) for key, path in sources.items()]})


def describe(key: str, path: str, outputs: Path) -> dict[str, Any]:
    """The entry of ``parent.json`` for the file or the run at ``path``, which ``key`` names."""
    file = checkpoint_file(path, key)
    entry: dict[str, Any] = {"key": key, "file": _below(file, outputs), "sha256": content_hash(file)}
    run = file.parent.parent
    status, meta = read_status(run) or {}, read_json(run / "meta.json")
    if "key" in status:
        entry["run"] = f"{status.get('name')}/{status['key']}"
        entry["code"] = meta.get("code") if isinstance(meta, dict) else None
    return entry


def changed_sources(sources: Mapping[str, str], directory: Path) -> Iterator[str]:
    """One phrase for each file whose content has changed since the run started from it."""
    hashes = {entry.get("key"): str(entry.get("sha256")) for entry in sources_of(directory)}
    for key, path in sources.items():
        try:
            now = content_hash(checkpoint_file(path, key))
        except (ConfigError, OSError):  # a run that has begun no longer needs it
            continue
        if hashes.get(key, now) != now:
            yield f"{key} had the content {hashes[key][:12]} and has {now[:12]}"


def content_hash(file: Path) -> str:
    """The SHA-256 of ``file`` in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _below(file: Path, outputs: Path) -> str:
    return f"<outputs>/{file.relative_to(outputs)}" if file.is_relative_to(outputs) else str(file)
