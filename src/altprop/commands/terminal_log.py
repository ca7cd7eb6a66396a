"""What altprop logs, on the terminal: bare lines there, with the time where the output goes to a file."""

from __future__ import annotations

import logging
import sys
from typing import Any


class TerminalHandler(logging.StreamHandler[Any]):
    """Writes to whatever ``sys.stderr`` is at the moment, so that a progress bar which replaces it is not torn."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.INFO)  # a run's own log file takes the details
        self.setFormatter(
            logging.Formatter("%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def show_log() -> None:
    """Show altprop's log from INFO on; harmless to call again."""
    logger = logging.getLogger("altprop")
    if not any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
        logger.addHandler(TerminalHandler())
    logger.setLevel(logging.INFO)
