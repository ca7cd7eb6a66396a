"""Saving a run's state, and putting it back."""

from __future__ import annotations

import logging
from typing import Any

import torch

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.problems import RunFailed
from altprop.training.checkpoint import FORMAT, INITIAL, CheckpointStore, random_state, restore_random_state
from altprop.training.cost import peak_memory
from altprop.training.plan import Plan
from altprop.training.progress import Progress
from altprop.training.rundir import RunDirectory

log = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints and status of one run. Only rank 0 writes."""

    def __init__(self, directory: RunDirectory, context: Context, plan: Plan, config_text: str, keep: int) -> None:
        self.directory = directory
        self.context = context
        self.plan = plan
        self.config_text = config_text
        self.store = CheckpointStore(directory.checkpoints, directory.key, keep)
        self.saved_step: int | None = None
        self.parameters: int | None = None
        """Of the model, for ``status.json``."""

    def state(self, algorithm: Algorithm, progress: Progress) -> dict[str, Any]:
        """The content of a checkpoint; see :mod:`altprop.training.checkpoint`."""
        return {
            "format": FORMAT,
            "name": self.directory.name,
            "key": self.directory.key,
            "step": progress.step,
            "config": self.config_text,
            "algorithm": algorithm.state_dict(),
            "progress": progress.state_dict(),
            "random": random_state(self.context.generators),
        }

    def save(self, algorithm: Algorithm, progress: Progress, *, best: bool = False, keep_as: str | None = None) -> None:
        """Write the checkpoint of this step."""
        if self.context.rank == 0:
            self.store.save(self.state(algorithm, progress), best=best, keep_as=keep_as)
        self.saved_step = progress.step

    def save_initial(self, algorithm: Algorithm, progress: Progress) -> None:
        """Write ``initial.pt``: the state before the first step, for runs that go back to the initial weights."""
        if self.context.rank == 0 and not (self.store.folder / INITIAL).exists():
            self.store.write(INITIAL, self.state(algorithm, progress))

    def restore(self, algorithm: Algorithm) -> Progress:
        """Put the newest complete checkpoint into ``algorithm`` and every random stream; a fresh Progress where there is none.

        Raises :class:`RunFailed` for one that other code than this has written, of an older version, say.
        """
        found, complaints = self.store.newest()
        for complaint in complaints:
            log.warning("passed over: %s", complaint)
        if found is None:
            return Progress()
        try:
            algorithm.load_state_dict(found.state["algorithm"])
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            raise RunFailed(
                f"{found.path} does not fit this code ({type(error).__name__}: {reason}); go on with the version that "
                "meta.json in the run's directory names, or train anew with resume=false"
            ) from error
        restore_random_state(found.state["random"], self.context.generator)
        self.saved_step = found.state["step"]
        log.info("resuming from step %d (%s)", found.state["step"], found.path.name)
        return Progress.from_state(found.state["progress"])

    def _peak_memory(self) -> dict[str, Any]:
        """The most that this run held, over its interruptions."""
        now, before = peak_memory(self.context.device), (self.directory.read_status() or {}).get("peak_memory")
        if before is None or before["of"] != now["of"]:
            return now
        return max(before, now, key=lambda memory: int(memory["bytes"]))

    def last_good(self) -> str:
        """Where the last checkpoint stands, for error messages."""
        if self.saved_step is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is that of step {self.saved_step} in {self.directory.checkpoints}"

    def status(self, status: str, progress: Progress, **fields: Any) -> None:
        """Write ``status.json``."""
        if self.context.rank != 0:
            return
        left = self.plan.total_steps - progress.step
        pace = progress.seconds / progress.step if progress.step else 0.0
        self.directory.write_status(
            status,
            step=progress.step,
            total_steps=self.plan.total_steps,
            epoch=round(progress.step / self.plan.steps_per_epoch, 3),
            total_epochs=round(self.plan.total_steps / self.plan.steps_per_epoch, 3),
            seconds=round(progress.seconds, 3),
            eta_seconds=round(left * pace, 1) if status == "running" else 0.0,
            last=progress.last,
            best=progress.best,
            parameters=self.parameters,
            flops=progress.flops,
            peak_memory=self._peak_memory(),
            **fields,
        )
