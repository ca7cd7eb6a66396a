"""The command line: Hydra's own, but a user's mistake is one line each on stderr, exit code 2, and nothing written.

``train.py``, ``evaluate.py``, ``report.py`` and ``data.py`` call :func:`entry_point`. Nothing here imports torch, so that
``--help``, ``--cfg``, ``--info``, tab completion and submitting a sweep answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hydra
from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig

from altprop.commands.messages.command_line import CompositionError
from altprop.commands.messages.help import help_page
from altprop.commands.messages.hydra_errors import Check, problems_of
from altprop.commands.terminal_log import show_log
from altprop.config.project import CONF
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.notes import SweepNotes

Run = Callable[[DictConfig], object]
"""What an entry point does with one composed configuration; runs once per job of a sweep."""

# Threads of one torch process that wait for each other spin by default, which on a machine shared with other processes makes
# small networks 10 to 30 times slower; they sleep instead. Read when torch is loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def entry_point(config_name: str, run: Run, check: Check | None = None) -> None:
    """Parse the command line, compose ``conf/<config_name>.yaml`` and call ``run`` with it (under ``-m``: once per job).

    Where it cannot be composed, ``check`` looks at what is right, so that a user sees all mistakes at once.

    Exits with 2 after a user's mistake and with :class:`RunFailed`'s code after a failure that one line can say. Any other
    exception is a bug and keeps its traceback, as all do with ``HYDRA_FULL_ERROR=1`` in the environment.
    """
    if not CONF.is_dir():
        sys.exit(f"{CONF} is missing: altprop runs from its own folder, installed with: pip install -e .")
    if get_args().help:
        print(help_page(config_name))
        sys.exit(0)
    for chatty in ("hydra.core.utils", "hydra.utils"):  # they log what is printed here as problems
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    job = Job(run)
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)
    with _exceptions_reach_us():
        try:
            main()
        except (ConfigError, RunFailed) as error:  # of a job that ran in another process
            _print_error(error)
            sys.exit(_exit_code(error))
        except CompositionError as error:
            if _from_a_job(error) or full_error:
                raise
            print_problems(problems_of(error, config_name, sys.argv[1:], check))
            SweepNotes.discard()
            sys.exit(2)
    job.finish()


class Job:
    """The function that Hydra calls for each job. Failures are kept, so that the other jobs of a sweep go on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.failures: list[Exception] = []
        self.count = 0
        self.sweeping = False
        self.in_another_process = False

    def __call__(self, config: DictConfig) -> None:
        show_log()
        self.count += 1
        self.sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            self.run(config)
        except Exception as error:
            if self.in_another_process:
                raise  # Hydra carries it back to the process that waits for it
            self.failures.append(error)
            if self.sweeping:
                hydra_config = HydraConfig.get()
                print(f"job {hydra_config.job.num} failed: {' '.join(hydra_config.overrides.task)}", file=sys.stderr)
                _print_error(error)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "in_another_process": True}

    def finish(self) -> None:
        """Exit as the first failure demands, if there was one; a bug is raised again."""
        if not self.failures:
            return
        if all(isinstance(error, ConfigError) for error in self.failures) and len(self.failures) == self.count:
            SweepNotes.discard()
        first = self.failures[0]
        if not self.sweeping:
            if not isinstance(first, (ConfigError, RunFailed)):
                raise first
            _print_error(first)
        sys.exit(_exit_code(first))


def _exit_code(error: Exception) -> int:
    if isinstance(error, RunFailed):
        return error.exit_code
    return 2 if isinstance(error, ConfigError) else 1


def _print_error(error: Exception) -> None:
    if isinstance(error, ConfigError):
        print_problems(error.problems)
    elif isinstance(error, RunFailed):
        print(error, file=sys.stderr)
    else:
        traceback.print_exception(error)


def print_problems(problems: list[Problem]) -> None:
    """One line each on stderr."""
    for problem in problems:
        print(problem, file=sys.stderr)


def _from_a_job(error: BaseException) -> bool:
    """Whether ``error`` was raised by a job in another process: Hydra hands it on when the job's result is read."""
    reader = JobReturn.return_value.fget  # type: ignore[attr-defined]
    return any(frame.f_code is reader.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


@contextmanager
def _exceptions_reach_us() -> Iterator[None]:
    """Hydra prints exceptions itself and exits with 1, unless asked for the full error."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
