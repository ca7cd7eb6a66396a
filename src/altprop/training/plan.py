"""When a run ends, is evaluated and is saved, in steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from altprop.algorithms.base import Algorithm
from altprop.training.duration import Duration
from altprop.training.settings import TrainerSettings


@dataclass(frozen=True)
class Plan:
    """The schedule of a run in steps. ``evaluate_every`` and ``save_every`` are None if that happens only at the end."""

    steps_per_epoch: int
    total_steps: int
    batch_size: int
    evaluate_every: int | None
    save_every: int | None
    probe_every: int | None = None

    @property
    def total_epochs(self) -> int:
        """Number of epochs, the last of which may be incomplete."""
        return -(-self.total_steps // self.steps_per_epoch)

    def images(self, step: int, num_samples: int) -> int:
        """The number of images in ``step`` mini-batches of ``num_samples`` images; the last one of an epoch may be smaller."""
        in_epoch = min(self.steps_per_epoch * self.batch_size, num_samples)
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * in_epoch + min(rest * self.batch_size, in_epoch)

    def evaluate_at(self, step: int) -> bool:
        """Whether an evaluation is due after ``step`` steps."""
        return self.evaluate_every is not None and step % self.evaluate_every == 0

    def save_at(self, step: int) -> bool:
        """Whether a checkpoint is due after ``step`` steps."""
        return self.save_every is not None and step % self.save_every == 0

    def probe_at(self, step: int) -> bool:
        """Whether the step after ``step`` finished ones is probed: the first one, then one per interval, and the last one."""
        return self.probe_every is not None and (step % self.probe_every == 0 or step == self.total_steps - 1)


def steps_in_epoch(settings: TrainerSettings, batches: int) -> int:
    """Steps per epoch of a training split with ``batches`` mini-batches."""
    return batches if settings.limit_batches is None else min(batches, settings.limit_batches)


def make_plan(settings: TrainerSettings, steps_per_epoch: int, batch_size: int, algorithm: Algorithm, model: nn.Module) -> Plan:
    """The plan of a run. ``algorithm.total_epochs`` says how many passes the requested epochs take."""
    duration = Duration.parse(settings.duration)
    if duration.unit == "ep" and float(duration.value).is_integer():
        total = algorithm.total_epochs(int(duration.value), model) * steps_per_epoch
    else:
        total = duration.steps(steps_per_epoch)

    def interval(text: str | None) -> int | None:
        return None if text is None else Duration.parse(text).steps(steps_per_epoch, total)

    intervals = [interval(text) for text in (settings.evaluate_every, settings.checkpoint_every, settings.probe_every)]
    return Plan(steps_per_epoch, total, batch_size, *intervals)
