"""``status.json`` of a run: what its reader accepts. The trainer writes it; reports, sweeps and the trainer read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from altprop.files import read_json

NAME = "status.json"
_NUMBER = (int, float)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("status", "name", "key", "started_at", "updated_at", "error"), str),
    **dict.fromkeys(("step", "total_steps", "pid", "parameters"), int),
    **dict.fromkeys(("epoch", "total_epochs", "seconds", "eta_seconds", "flops", "failed_at"), _NUMBER),
    **dict.fromkeys(("last", "best", "peak_memory", "job"), dict),
}


def read_status(directory: Path) -> dict[str, Any] | None:
    """The content of ``status.json`` in ``directory``; None if it is missing or is not a status.

    Entries of a wrong type, which a damaged or edited file may hold, are omitted.
    """
    content = read_json(directory / NAME)
    if not isinstance(content, dict):
        return None
    status: dict[str, Any] = {name: value for name, value in content.items() if isinstance(value, _TYPES.get(name, object))}
    for name in ("last", "best"):
        if name in status:
            status[name] = {key: value for key, value in status[name].items() if isinstance(value, _NUMBER)}
    memory = status.get("peak_memory", {})
    if memory and not (isinstance(memory.get("bytes"), int) and isinstance(memory.get("of"), str)):
        del status["peak_memory"]
    return status
