"""The log file of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from altprop.files import require_regular


class QuietFileHandler(logging.FileHandler):
    """A log file that stops silently if the disk is full, because a traceback per line would bury the error message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless the file cannot be opened."""
        try:
            if self.stream is None:
                with suppress(FileNotFoundError):
                    require_regular(Path(self.baseFilename))  # opening a pipe waits for somebody who reads it
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        self.setLevel(logging.CRITICAL + 1)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append everything that altprop logs, including debug messages, to ``path`` with time stamps inside this context."""
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
