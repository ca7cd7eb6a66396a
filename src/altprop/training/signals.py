"""Requests to stop: a signal sets a flag that the loop reads between two steps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
PREEMPTING = signal.SIGUSR2

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopRequests:
    """Context manager that catches SIGINT, SIGTERM and SIGUSR2 and stores the first of them in ``received``.

    A second Ctrl-C raises KeyboardInterrupt at once. The previous handlers are restored on exit. The one for SIGUSR2, which
    submitit installs to requeue the job, can be called with :meth:`hand_over` after everything is saved.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> StopRequests:
        for number in (*INTERRUPTING, PREEMPTING):
            try:
                self._previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not in the main thread, where the caller handles signals
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None or number == PREEMPTING:  # some clusters send SIGTERM first when they preempt
            self.received = number

    @property
    def preempted(self) -> bool:
        """Whether the cluster made the request and will start the run again."""
        return self.received == PREEMPTING

    def hand_over(self) -> None:
        """Call the previous handler for SIGUSR2, if there was one."""
        handler = self._previous.get(PREEMPTING)
        if callable(handler):
            handler(PREEMPTING, None)
