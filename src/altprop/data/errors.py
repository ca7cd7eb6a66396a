"""What goes wrong with files of a data set, said in one line that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from altprop.problems import ConfigError, Problem


class DataError(ConfigError):
    """A file of a data set that cannot be used: torn, corrupt or of another format. ``path`` is the file."""

    def __init__(self, path: Path, given: str, allowed: str, fix: str = "") -> None:
        self.path = path
        self.parts = (path, given, allowed, fix)
        super().__init__([Problem("dataset", f"{path} {given}", allowed, fix)])

    def __reduce__(self) -> tuple[type[DataError], tuple[Any, ...]]:
        """Exceptions pickle by their message; worker processes send this one home whole."""
        return DataError, self.parts
