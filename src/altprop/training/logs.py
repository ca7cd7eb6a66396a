"""The run's own log file beside what the terminal shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class QuietFileHandler(logging.FileHandler):
    """A log file that gives up silently on a full disk, where a traceback per line would bury the one line that matters."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        self.setLevel(logging.CRITICAL + 1)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append what altprop logs, details included, to ``path`` with time stamps, as long as the context lasts."""
    handler = QuietFileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("altprop")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)  # the terminal's handler has a level of its own
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
