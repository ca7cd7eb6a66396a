"""``parent.json`` in a run directory: what the run started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from altprop.files import read_json, write_json

NAME = "parent.json"


def write_parent(directory: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` to the file in the run ``directory``."""
    write_json(directory / NAME, content)


def read_parent(directory: Path) -> dict[str, Any]:
    """The content of the file; empty if the run started from nothing, or if the file is damaged."""
    content = read_json(directory / NAME)
    return content if isinstance(content, dict) else {}


def sources_of(directory: Path) -> list[dict[str, Any]]:
    """The files that the run in ``directory`` started from: ``key``, ``file``, ``sha256`` and, for runs, ``run`` and ``code``."""
    sources = read_parent(directory).get("sources")
    return [entry for entry in sources if isinstance(entry, dict)] if isinstance(sources, list) else []


def started_from(directory: Path) -> str:
    """The runs and files that the run in ``directory`` started from, in words; empty if there are none."""
    longer = read_parent(directory).get("run")
    words = [str(longer)] if longer else []
    for entry in sources_of(directory):
        words.append(f"{entry.get('run') or Path(str(entry.get('file'))).name} ({str(entry.get('sha256'))[:12]})")
    return ", ".join(dict.fromkeys(words))
