"""The command line. It is Hydra's, except that each mistake is one line on stderr, with exit code 2 and nothing written.

Every command calls :func:`entry_point` (see :mod:`altprop.commands.main`); the Python API calls :func:`execute`. Nothing here
imports torch, so ``--help``, ``--cfg``, ``--info``, tab completion and submitting a sweep respond at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
import hydra._internal.utils as hydra_utils
from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig

from altprop.commands.messages.arguments import flags_first
from altprop.commands.messages.command_line import CompositionError
from altprop.commands.messages.help import extra_folders, help_page
from altprop.commands.messages.hydra_errors import Check, problems_of
from altprop.config.checks.unused import problems_of_command
from altprop.config.project import CONF
from altprop.config.sources import measure_files
from altprop.faults import DISK, describe
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.notes import SweepNotes
from altprop.training.signals import Stopped, StopRequests, swallowed_stop

Run = Callable[[DictConfig], object]
"""What an entry point does with a composed configuration. It is called once per job of a sweep."""

# Torch's threads spin by default while they wait for each other, which makes small networks 10 to 30 times slower on a machine
# shared with other processes. PASSIVE makes them sleep. It must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# trainer.deterministic needs it on a GPU. cuBLAS reads it once per process, possibly in an earlier run of a sweep, hence here.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def entry_point(config_name: str, run: Run, check: Check | None = None, config: DictConfig | None = None) -> None:
    """Parse the command line, compose ``conf/<config_name>.yaml`` and call ``run`` with it (under ``-m``: once per job).

    ``config`` is what the command line composes, if that is known already.

    Exits with 2 after a user's mistake, with the code of :class:`RunFailed` after a failure that one line explains, with 1 after
    another error of the operating system, and with 128 plus the signal's number after a request to stop. Any other exception is a
    bug and keeps its traceback, as all exceptions do with ``HYDRA_FULL_ERROR=1`` in the environment.
    """
    _standard_streams()
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback per line
    with _output_may_close(fails=config_name != "train"):
        try:
            with StopRequests():
                if config is None:
                    _run(config_name, run, check)
                else:
                    _show_log()
                    run(config)
        except JobsFailed as failed:  # each job has already reported its failure
            sys.exit(_exit_code(failed.first))
        except Stopped as stop:
            _say(f"stopped by {stop}")
            sys.exit(128 + stop.number)
        except BrokenPipeError:  # nobody reads what this command prints any more
            pass
        except Exception as error:
            unnamed = isinstance(error, OSError) and error.filename is None and error.errno in DISK
            if unnamed and (problem := _output_error(probe=True)) is not None:
                _say(f"standard output cannot be written: {problem.strerror}")
                sys.exit(1)
            described = one_line_of(error)
            full_error = os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, ConfigError)
            if full_error or not isinstance(described, (ConfigError, RunFailed)):
                raise
            _print_error(described)
            sys.exit(_exit_code(described))


def _run(config_name: str, run: Run, check: Check | None) -> None:
    if any(word.startswith("query=") for word in sys.argv[1:]) and get_args().shell_completion:  # -sc query=<shell>
        from altprop.commands.completion import answer  # only a shell needs it

        answer(config_name, sys.argv[1:])
        return
    sys.argv[1:] = flags_first(sys.argv[1:])
    if get_args().help:
        print(help_page(config_name, extra_folders(sys.argv[1:])))
        sys.exit(0)
    for folder in extra_folders(sys.argv[1:]):
        if not folder.is_dir():
            key = "--config-dir" if str(folder) == str(get_args().config_dir) else "hydra.searchpath"
            raise ConfigError([Problem(key, f"{folder} is not a folder", "a folder with configuration files")])
    # Hydra says so of packages without __init__.py, whose files it reads. Folders that do not exist were refused above.
    warnings.filterwarnings("ignore", message=r"provider=hydra\.searchpath.*is not available")
    warnings.filterwarnings("ignore", module="PIL")  # of two lines; what an image needs is checked where it is decoded
    execute(config_name, run, check)


def one_line_of(error: Exception) -> Exception:
    """``error``, as :class:`RunFailed` if it is a fault of the machine that one line describes."""
    if isinstance(error, (ConfigError, RunFailed)):
        return error
    line = describe(error)
    return error if line is None else RunFailed(line)


def _standard_streams() -> None:
    """Open /dev/null in place of standard streams that are closed, so that no file of a run takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - it stays open


@contextmanager
def _output_may_close(fails: bool) -> Iterator[None]:
    """Ignore that standard output is a closed pipe. If it cannot be written otherwise, say so, and exit with 1 if ``fails``."""
    try:
        yield
    finally:
        problem = _output_error()
    if problem is not None and not isinstance(problem, BrokenPipeError):
        _say(f"standard output cannot be written: {problem.strerror}")
        if fails:
            sys.exit(1)


def _output_error(*, probe: bool = False) -> OSError | None:
    """Why standard output cannot be written, which is pointed to /dev/null in this case; None if it can be written.

    With ``probe``, an empty line is written, because a failed write can leave nothing to flush.
    """
    try:
        sys.stdout.flush()
        if probe:
            print(flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _say(line: object) -> None:
    """Print ``line`` on standard error. If that cannot be written, the exit code has to say it all."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def execute(config_name: str, run: Run, check: Check | None = None) -> None:
    """Do what the command line in ``sys.argv`` says: compose ``conf/<config_name>.yaml`` and call ``run`` with it.

    Raises:
        ConfigError: With every problem of a command line that cannot be composed. ``check`` then checks the valid part of the
            configuration, so that a user sees all mistakes at once. Also if a single ``run`` raises it.
        JobsFailed: After all jobs of a sweep that runs in this process have ended, if one of them failed.
        RunFailed: After a failure that one line explains.
    """
    for chatty in ("hydra.core.utils", "hydra.utils"):  # they log what is reported here as problems
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    measure_files()
    _refuse_run_dir(sys.argv[1:])
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    job = Job(run, config_name)
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)
    with _exceptions_propagate():
        try:
            main()
        except ConfigError:  # of a job that ran in another process
            SweepNotes.discard()
            raise
        except CompositionError as error:
            if _from_a_job(error) or full_error:
                raise
            problems = problems_of(error, config_name, sys.argv[1:], check)
            SweepNotes.discard()
            raise ConfigError(problems) from error
    job.finish()


def _refuse_run_dir(words: list[str]) -> None:
    """Raise ConfigError for ``hydra.run.dir``: Hydra would create that folder, and altprop would write nothing to it."""
    for word in words:
        if word.lstrip("+").startswith("hydra.run.dir="):
            where = word.partition("=")[2]
            allowed = "runs are in <paths.outputs>/<name>/<key>"
            raise ConfigError([Problem("hydra.run.dir", "is not used by altprop", allowed, f"paths.outputs={where}")])


class JobsFailed(Exception):  # noqa: N818 - named after the event
    """Jobs of a sweep failed; each failure was printed when it happened. ``first`` is the first one."""

    def __init__(self, first: Exception) -> None:
        super().__init__(str(first))
        self.first = first


class Job:
    """The function that Hydra calls for each job. It collects failures, so that the other jobs of a sweep still run."""

    def __init__(self, run: Run, config_name: str = "train") -> None:
        self.run = run
        self.config_name = config_name
        self.failures: list[Exception] = []
        self.count = 0
        self.sweeping = False
        self.in_another_process = False

    def __call__(self, config: DictConfig) -> None:
        _show_log()
        self.count += 1
        self.sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            if self.config_name != "train" and (problems := problems_of_command(config, self.config_name)):
                raise ConfigError(problems)
            self.run(config)
        except Exception as error:
            if (stop := swallowed_stop()) is not None:
                raise stop from error
            if self.in_another_process:
                raise  # Hydra returns it to the parent process
            self.failures.append(error)
            if self.sweeping:
                hydra_config = HydraConfig.get()
                _say(f"job {hydra_config.job.num} failed: {' '.join(hydra_config.overrides.task)}")
                _print_error(one_line_of(error))

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "in_another_process": True}

    def finish(self) -> None:
        """Raise the first failure, if any: that of a single run itself, that of a sweep as :class:`JobsFailed`."""
        if not self.failures:
            return
        if all(isinstance(error, ConfigError) for error in self.failures) and len(self.failures) == self.count:
            SweepNotes.discard()
        raise JobsFailed(self.failures[0]) if self.sweeping else self.failures[0]


def _exit_code(error: Exception) -> int:
    if isinstance(error, RunFailed):
        return error.exit_code
    return 2 if isinstance(error, ConfigError) else 1


def _print_error(error: Exception) -> None:
    if isinstance(error, ConfigError):
        print_problems(error.problems)
    elif isinstance(error, RunFailed):
        _say(error)
    else:
        traceback.print_exception(error)


def print_problems(problems: list[Problem]) -> None:
    """Print each problem on one line of stderr."""
    for problem in problems:
        _say(problem)


def _from_a_job(error: BaseException) -> bool:
    """Whether ``error`` was raised by a job in another process: Hydra raises it when the job's result is read."""
    reader = JobReturn.return_value.fget  # type: ignore[attr-defined]
    return any(frame.f_code is reader.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


@contextmanager
def _exceptions_propagate() -> Iterator[None]:
    """Let exceptions through, which Hydra prints itself before it exits with 1, unless it is run by a debugger.

    The variable HYDRA_FULL_ERROR has the same effect, but the processes and jobs of a sweep would inherit it.
    """
    before = hydra_utils.is_under_debugger
    hydra_utils.is_under_debugger = lambda: True
    try:
        yield
    finally:
        hydra_utils.is_under_debugger = before


class _TerminalHandler(logging.StreamHandler[Any]):
    """Log to the current ``sys.stderr``, which a progress bar may have replaced in order not to be interrupted.

    Lines have no prefix on a terminal, and the time if stderr is a file.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.INFO)  # details go to the run's own log file
        self.setFormatter(
            logging.Formatter("%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _show_log() -> None:
    """Show altprop's log from INFO on. Safe to call more than once."""
    logger = logging.getLogger("altprop")
    if not any(isinstance(handler, _TerminalHandler) for handler in logger.handlers):
        logger.addHandler(_TerminalHandler())
    logger.setLevel(logging.INFO)
