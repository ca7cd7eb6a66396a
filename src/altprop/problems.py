"""Problems in a configuration, each reported in one line. This module imports nothing from altprop."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A user's mistake.

    Printed as ``<key>: <description>; <allowed>; try: <fix>``.

    Args:
        key: The dotted configuration key.
        description: What is wrong with its value.
        allowed: What the value may be.
        fix: The command-line override or the command that corrects it; empty if there is none.
    """

    key: str
    description: str
    allowed: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.key}: {self.description}; {self.allowed}"
        return on_one_line(f"{line}; try: {self.fix}" if self.fix else line)


class ConfigError(Exception):
    """Raised with every problem found in a configuration; the entry points print them, one line each, and exit with 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem]]]:
        return type(self), (self.problems,)  # a job on a cluster pickles its error


def on_one_line(text: str) -> str:
    r"""``text`` with control characters written as escapes (``\n``), which could break the line or steer the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def message_of(error: BaseException) -> str:
    """The message of ``error`` with its lines joined into one."""
    return " ".join(str(error).split())


def first_line_of(error: BaseException) -> str:
    """The first line of the message of ``error`` that is not blank; empty if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def nearest(word: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """The entry of ``known`` that is most similar to ``word``, or None if none has this ``similarity`` (0 to 1)."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=similarity)
    return matches[0] if matches else None


class RunFailed(Exception):  # noqa: N818 - named after the event
    """A run cannot continue, for a reason that fits on one line (disk full, loss not finite, directory in use).

    The entry points print the line without a traceback and exit with ``exit_code``.
    """

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code
