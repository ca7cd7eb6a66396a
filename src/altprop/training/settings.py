"""The typed fields of the config group ``trainer``: how a run is trained, evaluated and saved.

The configuration schema is derived from these dataclasses, so each key is declared only here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from altprop.ranges import NonNegativeFloat, Norm, PositiveInt, Text, Workers
from altprop.training.duration import Duration

SELECTIONS = ("auto", "validation", "test", "last")
"""Words for ``trainer.select_on``, besides names of metrics."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when ``metric`` has not improved by more than ``min_delta`` for ``patience`` evaluations."""

    metric: Text = "validation/loss"
    """``<split>/loss`` (lower is better), ``<split>/accuracy`` (percent, higher is better) or a metric of the run's own."""
    patience: PositiveInt = 5
    """Number of evaluations without an improvement."""
    min_delta: NonNegativeFloat = 0.0
    """Smallest change that counts as an improvement."""

    def __post_init__(self) -> None:
        split, _, quantity = self.metric.partition("/")
        if split not in ("train", "validation", "test") or not quantity:
            raise ValueError("trainer.early_stopping.metric must be '<train|validation|test>/<loss|accuracy|own metric>'")
        if self.patience < 1:
            raise ValueError("trainer.early_stopping.patience must be at least 1")
        if self.min_delta < 0:
            raise ValueError("trainer.early_stopping.min_delta must not be negative")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Length, device, numerics, evaluation and checkpoints of a run. Raises ValueError for a value out of range."""

    duration: Text = "10ep"
    """Length of the run: ``10ep`` epochs or ``500st`` steps."""
    evaluate_every: Text | None = "1ep"
    """Interval of evaluations: ``1ep``, ``500st`` or ``10%`` of the run; null: only at the end."""
    checkpoint_every: Text | None = "1ep"
    """Interval of checkpoints, like ``evaluate_every``; null: only at the end."""
    probe_every: Text | None = None
    """Interval of the alignment probe, like ``evaluate_every``, from the first step on, and the last step; null: never."""
    log_every: PositiveInt = 50
    """Steps between two updates of the progress display."""

    device: Text = "auto"
    """``auto`` (cuda, else mps, else cpu), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp64"] = "fp32"
    """fp32 (the papers' numerics), fp64 (parameters and everything computed from them), tf32 matrix products, bf16 or fp16
    autocast."""
    compile: bool = False
    """torch.compile of the forward pass; changes rounding."""
    cuda_graph: bool = False
    """Capture the whole step in a CUDA graph and replay it; the same results bit for bit, with less time for small networks."""
    sync_batch_norm: bool = False
    """With several processes: batch norm over the whole mini-batch instead of each process's share."""
    channels_last: bool | Literal["auto"] = False
    """Convolutions in the channels-last memory format; changes rounding. auto: on CUDA, if no hard units could be flipped."""
    deterministic: bool = False
    """Use only deterministic kernels, which may be slower; an operation without one is an error."""
    threads: Workers | None = None
    """CPU threads of torch; null: torch's default."""

    clip_norm: Norm | None = None
    """Largest norm of the gradient of one optimizer's parameters; null: no clipping."""
    accumulate: PositiveInt = 1
    """Number of slices of a mini-batch whose gradients are accumulated; saves memory."""

    select_on: Text = "auto"
    """Split whose accuracy selects the best checkpoint, or another metric, such as ``validation/top5``; last: the last
    checkpoint; auto: validation if there is one, else last.
    """
    early_stopping: EarlyStopping | None = None
    """Rule for early stopping; null: train to the end."""
    evaluate_train: bool = False
    """Also evaluate the training images, without augmentation."""
    evaluate_test: Literal["always", "end", "never"] = "always"
    """Evaluate the test split in every evaluation, only at the end of the run, or not at all."""
    evaluate_first: bool = False
    """Also evaluate before the first step, for runs that start from the weights of another run."""
    keep: PositiveInt = 2
    """Number of recent checkpoints to keep in addition to the best one, at least 1; older ones replace a damaged newest one."""
    keep_epochs: list[PositiveInt] = field(default_factory=list)
    """Numbers of finished epochs whose checkpoints are kept permanently, as ``epoch-<n>.pt``."""
    save_initial: bool = False
    """Save the state before the first step as ``initial.pt``, for runs that start from the same initial weights."""
    figures: bool = True
    """Draw curves, confusion matrix and misclassified images at the end."""

    limit_batches: PositiveInt | None = None
    """Mini-batches per epoch and per evaluation; null: all. For debugging."""
    overfit: bool = False
    """Every epoch repeats the mini-batches of the first one, including order and augmentation. For debugging."""
    profile_steps: PositiveInt | None = None
    """Trace this many steps with torch.profiler into the run directory; null: none. For debugging."""

    def __post_init__(self) -> None:
        for name in ("duration", "evaluate_every", "checkpoint_every", "probe_every"):
            text = getattr(self, name)
            if text is not None:
                _check_duration(name, text)
        if Duration.parse(self.duration).unit == "%":
            raise ValueError("trainer.duration is the length of the whole run: give epochs ('10ep') or steps ('500st'), not '%'")
        split, _, metric = self.select_on.partition("/")
        if self.select_on not in SELECTIONS and not (split in ("validation", "test") and metric):
            raise ValueError(f"trainer.select_on must be {' | '.join(SELECTIONS)} | <validation|test>/<metric>")
        if not is_device(self.device):
            raise ValueError(f"trainer.device is {self.device!r}; it must be auto, cpu, cuda, cuda:N or mps")
        for name in ("log_every", "threads", "accumulate", "keep", "limit_batches", "profile_steps"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"trainer.{name} must be at least 1, not {number}")
        if any(epoch < 1 for epoch in self.keep_epochs):
            raise ValueError(f"trainer.keep_epochs counts finished epochs, from 1 on, not {self.keep_epochs}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"trainer.clip_norm must be positive, not {self.clip_norm}; null switches clipping off")


def is_device(text: str) -> bool:
    """Whether ``text`` is one of ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``."""
    kind, _, index = text.partition(":")
    return text in ("auto", "cpu", "cuda", "mps") or (kind == "cuda" and index.isdigit())


def _check_duration(name: str, text: str) -> None:
    try:
        Duration.parse(text)
    except ValueError as error:
        raise ValueError(f"trainer.{name}: {error}") from None
