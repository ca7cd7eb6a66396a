"""Ranking layers by sensitivity pre-training: one run per layer, in which only that layer is binary (Lan 2021, section 2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BINARY = "weights/binary/"


@dataclass(frozen=True)
class SensitivityRun:
    """The outcome of one finished run: all ``layers`` by name in forward order, the ``binary`` one, and its best accuracy."""

    layers: tuple[str, ...]
    binary: str
    accuracy: float
    metric: str


def read_sensitivity(records: Iterable[Mapping[str, Any]]) -> SensitivityRun:
    """The outcome of the sensitivity run with these records (metrics.jsonl).

    Its accuracy (percent) is the best over all epochs, on the validation split or, without one, on the test split. Raises
    ``ValueError`` with the reason if the records are not those of a run with exactly one binary layer throughout.
    """
    records = [record for record in records if any(name.startswith(BINARY) for name in record)]
    if not records:
        raise ValueError("has no record of binary layers")
    layers = tuple(name.removeprefix(BINARY) for name in records[0] if name.startswith(BINARY))
    flags = {tuple(name for name in layers if record[BINARY + name]) for record in records}
    if len(flags) != 1 or len(next(iter(flags))) != 1:
        raise ValueError("does not have exactly one binary layer throughout")
    metric = "validation/accuracy" if "validation/accuracy" in records[0] else "test/accuracy"
    return SensitivityRun(layers, next(iter(flags))[0], max(record[metric] for record in records), metric)


def mean_accuracies(runs: Sequence[SensitivityRun]) -> dict[str, float | None]:
    """The mean accuracy over the runs of each layer, in forward order; None for a layer without a run."""
    by_layer: dict[str, list[float]] = {name: [] for name in runs[0].layers}
    for run in runs:
        by_layer[run.binary].append(run.accuracy)
    return {name: sum(values) / len(values) if values else None for name, values in by_layer.items()}


def ascending_order(accuracies: Sequence[float]) -> tuple[int, ...]:
    """Positions 1..L from the least to the most sensitive layer; ties in forward order.

    The least sensitive layer is the one with the highest accuracy in ``accuracies`` when it alone is binary.
    """
    places = range(1, len(accuracies) + 1)
    return tuple(sorted(places, key=lambda place: (-accuracies[place - 1], place)))
