"""Saving and restoring the state of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from torch import nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.checkpoint_files import INITIAL
from altprop.faults import is_out_of_memory
from altprop.nn.weights.saved_run import different_kinds
from altprop.problems import RunFailed
from altprop.training.checkpoint import FORMAT, Checkpoint, CheckpointStore, random_state, restore_random_state
from altprop.training.cost import peak_memory
from altprop.training.plan import Plan
from altprop.training.processes import gathered
from altprop.training.progress import Progress
from altprop.training.rundir import RunDirectory

log = logging.getLogger(__name__)


def own_random_state(state: Mapping[str, Any], context: Context) -> Mapping[str, Any]:
    """The random state of this process in a checkpoint: that of its rank, or of the first process if there is no other."""
    streams = state.get("random_of_ranks", ())
    if context.world_size > 1 and context.rank > 0:
        if context.rank < len(streams):
            return streams[context.rank]
        log.warning("the checkpoint has no random streams of process %d: it uses those of the first one", context.rank)
    return state["random"]


class Saver:
    """Writes the checkpoints and the status of one run. Only rank 0 writes."""

    def __init__(
        self, directory: RunDirectory, context: Context, plan: Plan, config_text: str, *, keep: int, parameters: int
    ) -> None:
        """
        Args:
            directory: Where the files go.
            context: The run's device, rank and random streams.
            plan: The length of the run.
            config_text: The resolved configuration as YAML, stored in every checkpoint.
            keep: Number of recent checkpoints to keep.
            parameters: Number of the model's parameters, for ``status.json``.
        """
        self.directory = directory
        self.context = context
        self.plan = plan
        self.config_text = config_text
        self.store = CheckpointStore(directory.checkpoints, directory.key, keep)
        self.saved_step: int | None = None
        self.parameters = parameters

    def state(self, algorithm: Algorithm, progress: Progress, streams: Sequence[Any] = ()) -> dict[str, Any]:
        """The content of a checkpoint; see :mod:`altprop.training.checkpoint`. ``streams`` are the random states by rank."""
        return {
            "format": FORMAT,
            "name": self.directory.name,
            "key": self.directory.key,
            "step": progress.step,
            "config": self.config_text,
            "algorithm": algorithm.state_dict(),
            "progress": progress.state_dict(),
            "random": random_state(self.context),
            **({"random_of_ranks": streams} if streams else {}),
        }

    def save(self, algorithm: Algorithm, progress: Progress, *, best: bool = False, keep_as: str | None = None) -> None:
        """Write the checkpoint of the current step, unless it is written already. All processes of the run must call this."""
        if self.saved_step == progress.step and not best and keep_as is None:
            return
        streams = self._streams()
        if self.context.rank == 0:
            self.directory.require()
            self.store.save(self.state(algorithm, progress, streams), best=best, keep_as=keep_as)
        self.saved_step = progress.step

    def save_initial(self, algorithm: Algorithm, progress: Progress) -> None:
        """Write ``initial.pt``: the state before the first step, for runs that start from the same initial weights."""
        streams = self._streams()
        if self.context.rank == 0 and not (self.store.folder / INITIAL).exists():
            self.store.write(INITIAL, self.state(algorithm, progress, streams))

    def _streams(self) -> list[Any]:
        """The random states of all processes by rank, or nothing if there is only one process."""
        if self.context.world_size == 1:
            return []
        return gathered(random_state(self.context), self.context.world_size)

    def restore(self, algorithm: Algorithm) -> Progress:
        """Load the newest complete checkpoint into ``algorithm`` and every random stream. Returns its progress, or a new one.

        Raises :class:`RunFailed` if the checkpoint was written by incompatible code, such as an older version.
        """
        newest, complaints = self.store.newest()
        for complaint in complaints:
            log.warning("skipped: %s", complaint)
        if newest is None:
            return Progress()
        if self.context.rank == 0:
            self.store.repair(newest)
        progress = load_state(algorithm, newest)
        with _explained(newest):
            for line in restore_random_state(own_random_state(newest.state, self.context), self.context):
                log.warning("%s: %s", newest.path.name, line)
        self.saved_step = progress.step
        log.info("resuming from step %d (%s)", progress.step, newest.path.name)
        return progress

    def _peak_memory(self) -> dict[str, Any]:
        """The largest memory use of this run, over all interruptions."""
        now, before = peak_memory(self.context.device), (self.directory.read_status() or {}).get("peak_memory")
        if before is None or before["of"] != now["of"]:
            return now
        return max(before, now, key=lambda memory: int(memory["bytes"]))

    def last_good(self) -> str:
        """The step and place of the last checkpoint, for error messages."""
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


def load_state(algorithm: Algorithm, checkpoint: Checkpoint) -> Progress:
    """Load ``checkpoint`` into ``algorithm`` and return its progress. Raises :class:`RunFailed` if it does not fit the code."""
    with _explained(checkpoint):
        progress = Progress.from_state(checkpoint.state["progress"])
        require_kinds(checkpoint.state["algorithm"].get("model"), algorithm.model)
        algorithm.load_state_dict(checkpoint.state["algorithm"])
    return progress


def require_kinds(saved: Any, model: nn.Module) -> None:
    """Raise TypeError if a tensor in ``saved`` is of another kind than that of ``model``, to which torch would convert it."""
    if isinstance(saved, Mapping) and (different := different_kinds(model.state_dict(), saved)):
        raise TypeError(different[0])


@contextmanager
def _explained(checkpoint: Checkpoint) -> Iterator[None]:
    """Raise what goes wrong while ``checkpoint`` is restored as :class:`RunFailed`, except for a lack of memory."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = shorten(str(error), 300, placeholder=" …")  # torch names the tensors from its second line on
        raise RunFailed(
            f"{checkpoint.path} does not fit this code ({type(error).__name__}: {reason}); resume it with the version that "
            "meta.json in the run's directory names, or start over with resume=false"
        ) from error
