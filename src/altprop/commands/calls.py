"""Commands called from Python: what ``altprop train <overrides>`` does, with exceptions instead of exit codes.

Everything goes through the same functions as the command line, so that a call and a command with the same overrides are the same
run. ``sys.argv`` holds that command while a call runs: the run's ``meta.json`` and the jobs of a sweep are made from it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import DictConfig

from altprop.commands.entry import JobsFailed, execute
from altprop.commands.train import check_task, run_task
from altprop.config.plain import to_plain
from altprop.config.quoting import quoted
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.sweeping.jobs import Manifest
from altprop.sweeping.notes import SweepNotes

if TYPE_CHECKING:
    from altprop.training.predictor import Predictor

_SWEEPS = ("sweep", "hydra.mode", "hydra/sweeper")
"""Keys that turn a command into a sweep."""


def call_train(overrides: Sequence[str]) -> Path:
    """Run ``altprop train <overrides>`` in this process. Returns the run's directory."""
    _refuse_sweeps(overrides)
    directories: list[Path] = []
    _call("train", overrides, lambda config: directories.append(run_task(config)), check_task)
    return directories[0]


def call_sweep(overrides: Sequence[str]) -> list[Path | None]:
    """Run ``altprop train -m <overrides>``. Returns each run's directory, or None if it has none (``task=validate``)."""
    directories: list[Path | None] = []  # of runs in this process (cluster=inline); others are in the manifest
    SweepNotes.folder = None
    _call("train", overrides, lambda config: directories.append(run_task(config)), check_task, ["-m"])
    manifest = None if SweepNotes.folder is None else Manifest.read(SweepNotes.folder.absolute())
    if manifest is not None:
        directories += [None if run.directory is None else Path(run.directory) for run in manifest.runs]
    return directories


def call_validate(overrides: Sequence[str]) -> list[Problem]:
    """The problems that ``altprop train task=validate <overrides>`` would print."""
    from altprop.config.build import build

    try:
        _refuse_sweeps(overrides)
        _call("train", overrides, build, check_task)
    except ConfigError as error:
        return error.problems
    return []


def call_compose(overrides: Sequence[str], command: str = "train") -> dict[str, Any]:
    """The resolved configuration of ``command`` in plain containers, without checking more than that it can be composed."""
    composed: list[tuple[dict[str, Any], list[Problem]]] = []
    _refuse_sweeps(overrides)
    _call(command, overrides, lambda config: composed.append(to_plain(config)))
    [(plain, problems)] = composed
    if problems:
        raise ConfigError(problems)
    return plain


def call_evaluate(run: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run ``altprop evaluate run=<run> <overrides>``. Returns what it appends to ``evaluations.jsonl``."""
    from altprop.commands.evaluate import evaluation_of

    results: list[dict[str, Any]] = []
    _call("evaluate", [f"run={quoted(str(run))}", *overrides], lambda config: results.append(evaluation_of(config)))
    return results[0]


def load_model(directory: Path, checkpoint: str, device: str, *, trust: bool) -> Predictor:
    """The trained model of the run in ``directory``. With ``trust``, its configuration may name any code, which is executed."""
    from altprop.config.build import build_parts
    from altprop.config.checks.validation import problems_of_plain
    from altprop.config.restore import config_to_evaluate
    from altprop.training.isolation import isolated
    from altprop.training.predictor import Predictor
    from altprop.training.trained import load_trained

    config = config_to_evaluate(directory.resolve(), device=device, trust=trust)
    with isolated():
        if problems := problems_of_plain(config):
            raise ConfigError(problems)
        parts = build_parts(config)
        return Predictor(parts, load_trained(parts, checkpoint))


def _refuse_sweeps(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override == "cluster=slurm" or (isinstance(override, str) and override.partition("=")[0].lstrip("+") in _SWEEPS):
            raise ConfigError([Problem(override, "starts a sweep", "one run is trained here", f'altprop.sweep("{override}", …)')])


def _call(
    command: str,
    overrides: Sequence[str],
    run: Callable[[DictConfig], object],
    check: Callable[[DictConfig], list[Problem]] | None = None,
    flags: Sequence[str] = (),
) -> None:
    """Call ``run`` with what ``altprop <command> <flags> <overrides>`` composes.

    Raises:
        ConfigError: With every problem of the overrides.
        RunFailed: After a failure that one line explains.
    """
    if problems := [problem for text in overrides for problem in _problems_of_text(text)]:
        raise ConfigError(problems)
    with _command_line([f"altprop {command}", *flags, *overrides]), _hydra_of_its_own():
        try:
            execute(command, run, check)
            return
        except JobsFailed as failed:
            failure: Exception = failed.first
        except ConfigError as error:
            failure = ConfigError(_for_python(problem) for problem in error.problems)
        except SystemExit as stop:  # a signal stopped the run, which saved everything; its handlers are the caller's again
            received = int(stop.code or 0) - 128
            if received == signal.SIGINT:  # not raised as a signal, which a process in the background may ignore
                raise KeyboardInterrupt from None
            if received > 0:
                signal.raise_signal(received)
            failure = RunFailed("the run was stopped; everything is saved")
    raise failure


def _problems_of_text(text: object) -> Iterator[Problem]:
    if not isinstance(text, str):
        yield Problem("overrides", f"{text!r} is not text", 'each override is one string, such as "trainer.duration=3ep"')
    elif text.startswith("-"):
        yield Problem("overrides", f"{text!r} is a flag", "overrides only: key=value, +key=value, ~key or group=choice")


def _for_python(problem: Problem) -> Problem:
    """``problem`` with a fix that can be typed in Python."""
    if not problem.fix.startswith("-m "):
        return problem
    return Problem(problem.key, problem.description, problem.allowed, f'altprop.sweep("{problem.fix.removeprefix("-m ")}")')


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _hydra_of_its_own() -> Iterator[None]:
    """Let the caller use Hydra, too: its global state is set aside inside the context and restored afterwards."""
    running, config, base = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().version_base
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = config
        VersionBase.instance().version_base = base
