"""The files of a run's ``checkpoints/`` folder, and which of them a name stands for. See :mod:`altprop.training.checkpoint`."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from altprop.tensor_file import BadCheckpoint, read_tensor_file

LAST, BEST, INITIAL = "last.pt", "best.pt", "initial.pt"
_NAME = re.compile(r"\w[\w.-]{0,99}\.pt")


def find_checkpoint(folder: Path, name: str) -> Path | None:
    """The file in ``folder`` of the checkpoint ``name``, such as ``best.pt``, or None.

    This is ``last.pt`` if the process that saved it was killed before it could make the link.
    """
    last = folder / LAST
    if name != LAST and os.path.lexists(last):
        with suppress(BadCheckpoint):
            if name in names_of(read_tensor_file(last, verify=False)):
                return last
    return folder / name if os.path.lexists(folder / name) else None


def names_of(state: Any) -> list[str]:
    """The names of the files that are links to the checkpoint ``state``; none in checkpoints of earlier versions."""
    names = state.get("names", []) if isinstance(state, dict) else []
    return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)] if isinstance(names, list) else []
