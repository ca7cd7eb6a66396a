"""The accuracies of a network whose layers become binary one by one, reported separately (section 9, traps 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LAYERS = "weights/binary_layers"
FULLY = "weights/fully_binary"


@dataclass(frozen=True)
class Accuracy:
    """An accuracy in percent and the epoch (number of finished epochs) after which it was measured."""

    value: float
    epoch: float


@dataclass(frozen=True)
class Accuracies:
    """The last accuracy, the best one over epochs in which all layers were binary, and the best one over all epochs.

    The third may be that of a partly float network, which is not a result of a binary network.
    """

    last: Accuracy
    best_fully_binary: Accuracy | None
    best: Accuracy


def accuracies(records: Iterable[Mapping[str, Any]], split: str) -> Accuracies:
    """The three accuracies of ``split`` in a run's records (metrics.jsonl); among equals, the earliest epoch is the best.

    Raises ``ValueError`` if no record has an accuracy of ``split``.
    """
    metric = f"{split}/accuracy"
    evaluated = [record for record in records if metric in record]
    if not evaluated:
        raise ValueError(f"no record contains {metric}")
    last = evaluated[-1]
    binary = [record for record in evaluated if record.get(FULLY)]
    best = _best(evaluated, metric)
    assert best is not None
    return Accuracies(Accuracy(last[metric], last["epoch"]), _best(binary, metric), best)


def _best(records: Sequence[Mapping[str, Any]], metric: str) -> Accuracy | None:
    if not records:
        return None
    record = max(records, key=lambda record: record[metric])
    return Accuracy(record[metric], record["epoch"])


def binarizations(records: Iterable[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """The moments at which layers became binary.

    Each is the number of finished epochs before it and the number of binary layers from then on.
    """
    moments: list[tuple[float, int]] = []
    before, count = 0.0, 0
    for record in records:
        if LAYERS in record:
            if record[LAYERS] != count:
                count = int(record[LAYERS])
                moments.append((before, count))
            before = record["epoch"]
    return moments


def scaled_loss(loss: float, samples: int, batch_size: int) -> float:
    """The loss as the original code logs it: the sum of the mini-batches' mean losses over the number of samples (section 7).

    ``loss`` is the mean over ``samples`` samples that were evaluated in mini-batches of ``batch_size``. Raises ``ValueError`` if
    the last mini-batch is smaller than the others, because its own mean would be needed, too.
    """
    batch_size = min(batch_size, samples)
    if samples % batch_size:
        raise ValueError(f"{samples} samples cannot be split into mini-batches of {batch_size}")
    return loss * (samples // batch_size) / samples


def summary(records: Sequence[Mapping[str, Any]], sizes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """The three accuracies, the last loss and the loss as the original code logs it, by split.

    ``sizes`` maps each split to its number of samples and its mini-batch size. Splits without a record are left out. The scaled
    loss is None if :func:`scaled_loss` cannot compute it.
    """
    splits: dict[str, dict[str, Any]] = {}
    for split, (samples, batch_size) in sizes.items():
        evaluated = [record for record in records if f"{split}/accuracy" in record]
        if evaluated:
            loss = evaluated[-1][f"{split}/loss"]
            ragged = samples > batch_size and samples % batch_size
            scaled = None if ragged else scaled_loss(loss, samples, batch_size)
            splits[split] = {**asdict(accuracies(evaluated, split)), "loss": loss, "loss_scaled": scaled}
    return splits
