"""Evaluation of a model on a split: loss, accuracy and the run's own metrics of every answer, summed on the device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from altprop.algorithms.base import Algorithm
from altprop.data.base import Split
from altprop.training.processes import sum_over_processes

SAMPLES = ""
SHARES = ("accuracy", "accuracy_top5")
"""Metrics that are counted and reported in percent."""
TOP5_FROM_CLASSES = 11
"""Top-5 accuracy is reported for at least this many classes."""


def evaluate(algorithm: Algorithm, split: Split, *, limit_batches: int | None = None, world_size: int = 1) -> dict[str, float]:
    """Metrics of ``algorithm`` on ``split``: ``loss``, ``accuracy`` (percent), and ``accuracy_top5`` for more than ten classes.

    Metrics of answers other than the model's own have a prefix (``block1/accuracy``). Everything is summed over samples, so the
    result does not depend on the evaluation batch size, and the device is read once at the end. With ``world_size`` processes
    each evaluates its share, and all return the metrics of the whole split. The run's own metrics (``context.metrics``) are
    treated alike; classes of torchmetrics accumulate on the device and combine their states over the processes themselves.
    """
    sums: dict[str, Tensor] = {}
    accumulators: dict[str, Any] = {}
    classes = {name: metric for name, metric in algorithm.context.metrics.items() if not metric.is_function}
    samples = 0
    with algorithm.inference():
        for inputs, targets in islice(split.batches(), limit_batches):
            samples += targets.shape[0]
            for answer, scores in algorithm.predictions(inputs).items():
                for name, value in _sums(algorithm, scores, targets).items():
                    name = f"{answer}/{name}" if answer else name
                    sums[name] = sums[name] + value if name in sums else value
                for own, metric in classes.items():
                    name = f"{answer}/{own}" if answer else own
                    if name not in accumulators:
                        accumulators[name] = metric.build(scores.shape[1], scores.device)
                    accumulators[name].update(scores, targets)
        computed = {name: accumulator.compute() for name, accumulator in accumulators.items()}
    totals = torch.stack(list(sums.values())).tolist() if sums else []
    added = sum_over_processes({**dict(zip(sums, totals, strict=True)), SAMPLES: samples}, world_size)
    samples = int(added.pop(SAMPLES))
    means = {name: total / samples * (100.0 if name.rpartition("/")[2] in SHARES else 1.0) for name, total in added.items()}
    return {**means, **{name: float(value) for name, value in computed.items()}}


def _sums(algorithm: Algorithm, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Sums over the batch: loss, number of correct answers, and the run's own functions."""
    exact = torch.float32 if scores.device.type == "mps" else torch.float64  # MPS has no float64
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    sums = {
        "loss": algorithm.evaluation_loss(scores, targets).to(exact) * targets.shape[0],
        "accuracy": (scores.argmax(dim=1) == targets).sum().to(exact),
    }
    if scores.shape[1] >= TOP5_FROM_CLASSES:
        sums["accuracy_top5"] = (scores.topk(5, dim=1).indices == targets[:, None]).any(dim=1).sum().to(exact)
    for name, metric in algorithm.context.metrics.items():
        if metric.is_function:
            sums[name] = metric.mean(scores, targets).to(exact) * targets.shape[0]
    return sums


@dataclass(frozen=True)
class Answers:
    """The model's scores on a whole split, on the CPU: ``scores`` ``[samples, classes]``, ``targets`` ``[samples]``."""

    scores: Tensor
    targets: Tensor

    @property
    def predicted(self) -> Tensor:
        """The class with the highest score, ``[samples]``."""
        return self.scores.argmax(dim=1)


def answers(algorithm: Algorithm, split: Split, *, limit_batches: int | None = None) -> Answers:
    """The model's own scores on every sample of ``split``, in its order."""
    scores, targets = [], []
    with algorithm.inference():
        for inputs, labels in islice(split.batches(), limit_batches):
            scores.append(algorithm.predict(inputs).float().cpu())
            targets.append(labels.cpu())
    return Answers(torch.cat(scores), torch.cat(targets))
