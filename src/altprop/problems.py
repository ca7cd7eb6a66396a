"""One mistake in a configuration, said in one line. The bottom of the import graph: it imports nothing of altprop."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A user's mistake.

    ``key`` is the dotted configuration key, ``given`` what stands there, ``allowed`` what may stand there, and ``mend`` the
    command-line override or command that puts it right.
    """

    key: str
    given: str
    allowed: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.key}: {self.given}; {self.allowed}"
        return f"{line}; try: {self.mend}" if self.mend else line


class ConfigError(Exception):
    """Raised with every problem found in a configuration; the entry points print them, one line each, and exit with 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem]]]:
        return type(self), (self.problems,)  # a job on a cluster pickles its error


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of ``known`` that looks most like ``word``, or None where nothing comes close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


class RunFailed(Exception):  # noqa: N818 - it names what happened to the run
    """A run cannot go on, for a reason that one line can say (disk full, loss not finite, directory in use).

    The entry points print the line without a traceback and exit with ``exit_code``.
    """

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code
