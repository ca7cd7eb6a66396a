"""Requests to stop. During training a signal sets a flag that the loop reads between two steps; elsewhere it stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREEMPTING = signal.SIGUSR2

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Stopped(BaseException):
    """A request to stop ends this run now. ``number`` is the signal's number; ``saved`` says whether every step is saved.

    It is not an ``Exception``, so that code that tolerates failures, such as that of figures, does not swallow it.
    """

    def __init__(self, number: int, *, saved: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.saved = saved


class StopRequests:
    """Context manager that catches SIGINT, SIGTERM, SIGHUP and SIGUSR2, and stores the first of them in ``received``.

    Raises :class:`Stopped` at once, except inside :meth:`deferred`, where the caller reads ``received``. A second Ctrl-C always
    raises it. A SIGHUP that the command was told to ignore (``nohup``) stays ignored. The previous handlers are restored on exit.
    The one for SIGUSR2, which submitit installs to requeue the job, can be called with :meth:`hand_over` after everything is
    saved.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferred = False
        self._raised: int | None = None
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> StopRequests:
        if (stop := swallowed_stop()) is not None:
            raise stop
        for number in (*INTERRUPTING, PREEMPTING):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not in the main thread, where the caller handles signals
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if error is not None and (stop := self.stop_behind(error)) is not None and stop is not error:
            raise stop from error

    def stop_behind(self, error: BaseException | None = None) -> Stopped | None:
        """The request to stop that made ``error``, if one did: code that it interrupts, such as an import, may replace it."""
        if isinstance(error, Stopped):
            return error
        if self._raised is None or not (error is None or isinstance(error, Exception)):
            return None
        return Stopped(self._raised)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.received == signal.SIGINT
        first = self.received is None
        if first or number == PREEMPTING:  # some clusters send SIGTERM first when they preempt
            self.received = number
        if again or (first and not self._deferred):
            self._raised = number
            raise Stopped(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside this context, a signal only sets ``received``, and the caller stops when everything is saved.

        Raises :class:`Stopped` on exit if the caller has not stopped.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.received is not None:
            raise Stopped(self.received, saved=True)

    @property
    def preempted(self) -> bool:
        """Whether the cluster made the request and will start the run again."""
        return self.received == PREEMPTING

    def hand_over(self) -> None:
        """Call the handler for SIGUSR2 that was there before this object and others of its kind, if there was one.

        From then on, all of them ignore further requests: the cluster sends SIGTERM to a job that it requeues.
        """
        self.received = self.received or PREEMPTING
        handler = self._previous.get(PREEMPTING)
        outer = getattr(handler, "__self__", None)
        if isinstance(outer, StopRequests):
            outer.hand_over()
        elif callable(handler):
            handler(PREEMPTING, None)


def swallowed_stop() -> Stopped | None:
    """The request to stop that was raised and that other code has swallowed or replaced by an error of its own; else None."""
    requests = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return requests.stop_behind() if isinstance(requests, StopRequests) else None


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Inside this context, a request to stop prints one line and ends the process, as is best while modules are imported."""
    previous: dict[int, Handler] = {}
    number: int
    for number in (*INTERRUPTING, PREEMPTING):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with suppress(ValueError):  # not in the main thread, where the caller handles signals
                previous[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)
