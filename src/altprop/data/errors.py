"""The error raised for unusable files of a data set: one line for each file, which names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altprop.problems import ConfigError, Problem


class DataError(ConfigError):
    """Raised when a file of a data set cannot be used: missing, truncated, corrupt or in another format.

    Args:
        path: The file.
        description: What is wrong with it; continues the sentence that begins with the path.
        allowed: What the file should be.
        fix: The override or command that corrects it; empty if there is none.
    """

    def __init__(self, path: Path, description: str, allowed: str, fix: str = "") -> None:
        self.path = path
        self._arguments = (path, description, allowed, fix)
        super().__init__([Problem("dataset", f"{path} {description}", allowed, fix)])

    def with_fix(self, fix: str) -> DataError:
        """The same error with this ``fix``, unless it has one already."""
        path, description, allowed, own = self._arguments
        return DataError(path, description, allowed, own or fix)

    def __reduce__(self) -> tuple[type[DataError], tuple[Any, ...]]:
        """Pickle the constructor's arguments, so that an error raised in a worker process reaches the trainer complete."""
        return DataError, self._arguments


def raise_all(errors: Sequence[DataError]) -> None:
    """Raise the only error, or a ConfigError with the problems of all of them; do nothing if there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)
