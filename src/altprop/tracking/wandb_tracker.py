"""Weights & Biases: a mirror of the metrics file, one W&B run per run key."""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from altprop.nn.metrics.names import higher_is_better
from altprop.problems import Problem
from altprop.ranges import NonNegativeFloat, Text
from altprop.tracking.base import Histogram, RunInfo, Status, Tracker, Watched
from altprop.tracking.metrics_file import JSON_NAME, read_metrics

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
INIT_TIMEOUT = 20.0
"""Seconds to wait for the service before the run is written to offline files."""
EXIT_CODES: Mapping[Status, int] = {"done": 0, "failed": 1, "preempted": 1, "interrupted": 255}
"""W&B shows these as finished, failed, preempted (after ``mark_preempting``; 0 would show finished) and killed."""
TRUE_WORDS = ("true", "1", "yes", "y", "on", "t")
"""What W&B reads as true in the environment."""
SPLITS = ("train", "train_plain", "validation", "test")


class WandB(Tracker):
    """Logs every record, figures and, on request, histograms to W&B.

    The id of the W&B run is the run key, so that a requeued run continues the same W&B run. If the service cannot be reached, the
    run is written to offline files and a warning is logged. The summary contains the highest value of every accuracy as ``max/…``
    and the lowest value of every loss as ``min/…``.

    Args:
        project: The W&B project. None: ``WANDB_PROJECT`` in the environment, otherwise ``altprop``.
        entity: The W&B user or team. None: ``WANDB_ENTITY`` in the environment, otherwise the account's default.
        mode: ``online``, ``offline`` (files for ``wandb sync``, in ``WANDB_DIR`` of the environment or else in the run
            directory) or ``disabled``. None: ``WANDB_MODE`` or ``WANDB_DISABLED`` in the environment, otherwise ``online``.
        watch: Tensors to log histograms of: ``gradients``, ``parameters``, ``all``, or None.
        finish_timeout: Seconds to wait for uploads at the end of a run.
    """

    def __init__(
        self,
        *,
        project: Text | None = None,
        entity: Text | None = None,
        mode: Mode | None = None,
        watch: Watched | None = None,
        finish_timeout: NonNegativeFloat = 30.0,
    ) -> None:
        self.project = project or os.environ.get("WANDB_PROJECT") or "altprop"
        self.entity = entity
        self.mode = mode or mode_of_environment() or "online"
        self.watched = watch if self.mode != "disabled" else None
        self.finish_timeout = finish_timeout
        self._run: Any = None
        self._defined: set[str] = set()
        self._own: tuple[str, ...] = ()
        self._extremes: dict[str, float] = {}
        self._histograms: dict[str, Any] = {}
        self._position: dict[str, float] = {}

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for an unknown ``WANDB_MODE``, or for online logging without a W&B account on this machine."""
        mode = config.get("mode")
        if mode is None and (mode := mode_of_environment() or "online") not in get_args(Mode):
            allowed = "WANDB_MODE is online, offline or disabled"
            yield Problem("logger.wandb.mode", f"WANDB_MODE={mode} in the environment", allowed, "logger.wandb.mode=offline")
        if mode == "online" and not has_credentials():
            yield Problem(
                "logger.wandb.mode",
                "online, but no W&B account is set up on this machine",
                "log in once, set WANDB_API_KEY, or write offline files",
                "wandb login, or logger.wandb.mode=offline",
            )

    def start(self, run: RunInfo) -> None:
        """Open the W&B run, or resume it. In offline mode, errors of ``wandb.init`` are raised."""
        if self.mode == "disabled":
            return
        self._own = tuple(run.config.get("metrics") or {})
        try:
            if self.mode == "online" and not has_credentials():
                raise RuntimeError("no account is set up on this machine (wandb login)")  # wandb would prompt on the terminal
            self._run = self._init(run, self.mode)
        except Exception as error:
            if self.mode == "offline":
                raise
            self._abandon()
            self._run = self._init(run, "offline")
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            logger.warning("W&B cannot be reached (%s); upload later with: wandb sync %s", reason, Path(self._run.dir).parent)
        self._define("epoch", hidden=True)
        self._define("step", hidden=True)
        if run.resumed:
            for record in read_metrics(run.directory / JSON_NAME):
                self._update_extremes(record)

    def _init(self, run: RunInfo, mode: Mode) -> Any:
        import wandb

        # The console tracker shows progress, and anything that wandb prints would break the progress bar.
        quiet: dict[str, Any] = {"console": "off", "silent": True, "init_timeout": INIT_TIMEOUT}
        if "finish_timeout" in wandb.Settings.model_fields:  # limits how long wandb waits when the process ends
            quiet["finish_timeout"] = self.finish_timeout
        wandb.setup(wandb.Settings(silent=True))  # the login reads these settings, not the run's
        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            id=run.key if run.job_type == "train" else f"{run.key}-{run.job_type}",
            name=f"{run.name} seed {run.seed}",
            group=run.group,
            job_type=run.job_type,
            tags=list(run.tags),
            config=dict(run.config),
            dir=os.environ.get("WANDB_DIR") or run.directory,
            resume="allow",
            reinit="finish_previous",
            settings=wandb.Settings(**quiet),
        )

    def _abandon(self) -> None:
        """Stop wandb's service, which still holds the id of a run that could not be opened or closed."""
        import wandb

        wandb.teardown(exit_code=1)

    def log(self, record: Mapping[str, float]) -> None:
        """Add one row to the history, without W&B's own step, which would drop rows after a resume."""
        if self._run is None:
            return
        self._position = {name: record[name] for name in ("epoch", "step")}
        for name in (*record, *self._histograms):
            self._define(name)
        self._run.log({**record, **self._histograms})
        self._histograms = {}
        changed = self._update_extremes(record)
        if changed:
            self._run.summary.update(changed)

    def histograms(self, epoch: float, step: int, values: Mapping[str, Histogram]) -> None:
        """Store the histograms for the row of the next record."""
        import wandb

        self._histograms = {name: wandb.Histogram(np_histogram=(value.counts, value.edges)) for name, value in values.items()}

    def figure(self, name: str, path: Path) -> None:
        """Add an image at the epoch and step of the last record."""
        if self._run is None:
            return
        import wandb

        self._define(f"figures/{name}")
        self._run.log({**self._position, f"figures/{name}": wandb.Image(os.fspath(path))})

    def preempting(self) -> None:
        """Show the run as preempted instead of crashed until it is resumed."""
        if self._run is not None:
            self._run.mark_preempting()

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Write ``summary`` and close the W&B run with the exit code of ``status``."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.summary.update({**summary, **self._extremes})
            run.finish(exit_code=EXIT_CODES[status])
        except Exception:
            with contextlib.suppress(Exception):
                self._abandon()
            raise

    def _define(self, name: str, *, hidden: bool = False) -> None:
        """Define the x-axis of ``name``, once: epochs for results on a split, steps for everything else."""
        if name in self._defined:
            return
        self._defined.add(name)
        if hidden:
            self._run.define_metric(name, hidden=True)
        else:
            self._run.define_metric(name, step_metric="epoch" if name.split("/")[0] in SPLITS else "step")

    def _update_extremes(self, record: Mapping[str, float]) -> dict[str, float]:
        """Update the extremes with ``record``, and return those that changed."""
        changed = {}
        for name, value in record.items():
            split, metric = name.split("/")[0], name.split("/")[-1]
            if split not in SPLITS or not (metric.startswith(("accuracy", "loss")) or metric in self._own):
                continue
            key, better = (f"max/{name}", max) if higher_is_better(metric) else (f"min/{name}", min)
            previous = self._extremes.get(key)
            if value == value and (previous is None or better(value, previous) != previous):
                self._extremes[key] = changed[key] = value
        return changed


def mode_of_environment() -> Any:
    """Return ``WANDB_MODE`` of the environment, with W&B's former words for modes translated; None if it is not set.

    Without it, a true ``WANDB_DISABLED`` is the mode ``disabled``.
    """
    word = os.environ.get("WANDB_MODE") or None
    if word is None and os.environ.get("WANDB_DISABLED", "").lower() in TRUE_WORDS:
        return "disabled"
    return {"dryrun": "offline", "run": "online"}.get(word or "", word)


def has_credentials() -> bool:
    """Return whether the environment or ``.netrc`` has credentials for the configured W&B server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    for candidate in (path, path.with_name("_netrc")):
        try:
            return netrc.netrc(candidate).authenticators(host) is not None
        except (OSError, netrc.NetrcParseError):
            continue
    return False
