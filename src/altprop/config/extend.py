"""``run=<directory> trainer.duration=200ep``: make a finished run longer.

The longer run is the one that the longer configuration describes, with a key and a directory of its own. It takes over the state
and the records of the finished run, so it ends with the same weights as a run that had this length from the start. This requires
that nothing in the configuration depends on the length; otherwise the run is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from altprop.algorithms.base import Algorithm
from altprop.algorithms.schedule import TOTAL
from altprop.files import read_json
from altprop.names import class_of
from altprop.problems import ConfigError, Problem
from altprop.training.duration import Duration

KEY = "trainer.duration"


def check_extension(stored: Mapping[str, Any], duration: Any, directory: Path) -> None:
    """Raise ConfigError with every reason why the run in ``directory`` cannot be made as long as ``duration``."""
    if problems := list(_problems(stored, duration, directory)):
        raise ConfigError(problems)


def _problems(stored: Mapping[str, Any], duration: Any, directory: Path) -> Iterator[Problem]:
    trainer = stored["trainer"]
    try:
        before, after = Duration.parse(trainer["duration"]), Duration.parse(duration)
    except ValueError as error:
        yield Problem(KEY, str(error), f"longer than {trainer['duration']}")
        return
    if after.unit != before.unit or after.value <= before.value:
        longer = Duration(2 * before.value, before.unit)
        yield Problem(KEY, f"{after} is not longer than {before}", "a longer duration with the same unit", f"{KEY}={longer}")
        return
    status = read_json(directory / "status.json")
    status = status if isinstance(status, dict) else {}
    if status.get("status") != "done":
        state = status.get("status", "not started")
        yield Problem(KEY, f"the run is not finished ({state})", "finish it first", f"run={directory}")
    if status.get("stopped_early"):
        yield Problem(KEY, f"the run {status['stopped_early']}", "a run that was not stopped early", "a new run")
    yield from _depends_on_length(stored)


def _depends_on_length(stored: Mapping[str, Any]) -> Iterator[Problem]:
    """What would have been different from the start in a longer run."""
    new_run = "train a new run of this length"
    scheduler = (stored.get("schedule") or {}).get("scheduler") or {}
    for name in (name for name, value in scheduler.items() if value == TOTAL):
        yield Problem(f"schedule.scheduler.{name}", "the schedule ends with the run, so it does not say what comes next", new_run)
    for name in ("evaluate_every", "checkpoint_every", "probe_every"):
        if str(stored["trainer"].get(name) or "").endswith("%"):
            yield Problem(f"trainer.{name}", f"{stored['trainer'][name]} of a longer run is at other steps", new_run)
    algorithm = class_of(stored["algorithm"])
    if algorithm is not None and issubclass(algorithm, Algorithm) and algorithm.total_epochs is not Algorithm.total_epochs:
        yield Problem("algorithm", f"{algorithm.__name__} divides the length of the run among its blocks", new_run)
    weights = stored["algorithm"].get("weights") or {}
    if str(weights.get("stop_epoch")).endswith("%"):
        yield Problem("algorithm.weights.stop_epoch", f"{weights['stop_epoch']} of a longer run is another epoch", new_run)
    if (weights.get("prune") or {}).get("decay") == "cosine" and weights.get("stop_epoch") is None:
        yield Problem("algorithm.weights.prune.decay", "cosine ends with the run", new_run)
