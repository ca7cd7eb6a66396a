"""altprop in Python (docs/library.md): ``train``, ``sweep``, ``evaluate``, ``validate``, ``compose``, ``runs`` and ``Run``.

All are available as ``altprop.train`` and so on. Overrides are those of the command line, one string each. No torch is imported
until it is needed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altprop.commands import calls
from altprop.files import read_json
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.reporting.runs import read_run, run_directories

if TYPE_CHECKING:
    from pandas import DataFrame

    from altprop.training.predictor import Predictor

__all__ = ["ConfigError", "Problem", "Run", "RunFailed", "compose", "evaluate", "runs", "sweep", "train", "validate"]


class Run:
    """A run, in whatever state it is. Every property is read from the files in its directory when it is asked for.

    Args:
        directory: The directory of the run, such as ``outputs/latest``.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).resolve()
        """``<paths.outputs>/<name>/<key>``."""

    @property
    def name(self) -> str:
        """The name of its configuration, such as ``ftprop/cifar10_convnet4_step_sh``."""
        return str(self.config["name"])

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that identify what it computes."""
        return self.directory.name

    @property
    def seed(self) -> int:
        """The seed of its random streams."""
        return int(self.config["seed"])

    @property
    def status(self) -> str:
        """``done``, ``running``, ``failed``, ``preempted``, ``interrupted`` or ``not started``."""
        return str(self._status.get("status", "not started"))

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not."""
        return str(self._status.get("error") or "")

    @property
    def config(self) -> Mapping[str, Any]:
        """Its resolved configuration. Raises ConfigError if the directory has none."""
        from altprop.config.restore import read_config  # imports torch

        return read_config(self.directory)

    @property
    def metrics(self) -> Sequence[Mapping[str, Any]]:
        """Its records, one per evaluation: ``epoch``, ``train/loss``, ``test/accuracy`` (percent) and so on."""
        return read_run(self.directory).records if (self.directory / "config.yaml").exists() else ()

    @property
    def last(self) -> Mapping[str, Any]:
        """The newest record; empty if there is none."""
        return self._status.get("last") or {}

    @property
    def best(self) -> Mapping[str, Any]:
        """The record of the epoch that ``trainer.select_on`` selected; empty if none was selected."""
        return self._status.get("best") or {}

    def frame(self) -> DataFrame:
        """:attr:`metrics` as a pandas DataFrame with one row per record. Raises ImportError if pandas is not installed."""
        import pandas

        return pandas.DataFrame(list(self.metrics))

    def load(self, checkpoint: str = "auto", device: str = "auto", *, trust: bool = False) -> Predictor:
        """The trained model, which returns scores for a tensor of images. Its data set must be in the run's ``paths.data``.

        Args:
            checkpoint: ``last``, ``best``, or ``auto``: best if the run selected one, otherwise last.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            trust: Whether the run's ``config.yaml`` may name any code, which is then executed. Otherwise it may name classes of
                altprop, torch and packages that announce themselves (docs/trust.md).

        Raises:
            ConfigError: If the directory is not a run, if it names what it may not, or if there is no such checkpoint.
            RunFailed: If the checkpoint is damaged.
        """
        return calls.load_model(self.directory, checkpoint, device, trust=trust)

    @property
    def _status(self) -> Mapping[str, Any]:
        content = read_json(self.directory / "status.json")
        return content if isinstance(content, dict) else {}

    def __repr__(self) -> str:
        accuracy = self.last.get("test/accuracy")
        shown = "" if accuracy is None else f", test accuracy {accuracy:.2f} %"
        return f"Run({str(self.directory)!r}: {self.status}{shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.directory == self.directory

    def __hash__(self) -> int:
        return hash(self.directory)


def train(*overrides: str) -> Run:
    """Train the run that ``overrides`` describe, resume it, or find it done, like ``altprop train <overrides>``.

    Runs of one process do not influence each other: each computes what it would in a process of its own.

    Raises:
        ConfigError: With every problem, before anything is written.
        RunFailed: After a failure that one line explains.
        KeyboardInterrupt: After Ctrl-C, when everything is saved. The same call resumes the run.
    """
    return Run(calls.call_train(overrides))


def sweep(*overrides: str) -> list[Run]:
    """Run every combination of the values in ``overrides``, like ``altprop train -m <overrides>``. Returns all runs in order.

    Runs are trained in processes of their own (``cluster=local``), in this process (``cluster=inline``) or on SLURM
    (``cluster=slurm``), in which case the call returns after submitting. A search returns the runs of all its trials.

    Raises:
        ConfigError: With every problem of the overrides.
        RunFailed: With one line for each run that failed, after all others have ended.
    """
    return [Run(directory) for directory in calls.call_sweep(overrides) if directory is not None]


def evaluate(run: Run | str | Path, *overrides: str) -> dict[str, Any]:
    """Evaluate a trained run like ``altprop evaluate run=<run> <overrides>``; overrides are ``split=train``, ``metrics=top5``.

    ``run`` may also be a path, ``<name>/<key>`` below ``paths.outputs``, or a key.

    Returns the result, which is also appended to ``evaluations.jsonl`` in the run's directory: ``accuracy`` (percent), ``loss``,
    ``samples`` and more. Raises ConfigError or RunFailed.
    """
    return calls.call_evaluate(run.directory if isinstance(run, Run) else run, overrides)


def validate(*overrides: str) -> list[Problem]:
    """Every problem of the configuration that ``overrides`` describe; empty if it is valid. Trains and writes nothing."""
    return calls.call_validate(overrides)


def compose(*overrides: str) -> dict[str, Any]:
    """The resolved configuration that ``overrides`` describe, as dicts, lists and scalars. Raises ConfigError."""
    return calls.call_compose(overrides)


def runs(*patterns: str, outputs: str | Path | None = None) -> list[Run]:
    """The runs whose name, or ``<name>/<key>``, matches one of ``patterns`` (``ftprop/*``), sorted by path; all without patterns.

    Args:
        patterns: Names with ``*``, which matches anything.
        outputs: The folder of the runs; ``paths.outputs`` by default.
    """
    folder = Path(outputs if outputs is not None else calls.call_compose((), "report")["paths"]["outputs"]).resolve()
    matches = []
    for directory in run_directories(folder):
        name = directory.relative_to(folder).as_posix()
        if any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns or ("*",) for text in (name, name.rpartition("/")[0])):
            matches.append(Run(directory))
    return matches
