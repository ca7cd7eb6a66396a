"""Rows of a report: runs that differ only in their seed, summarized and compared with the paper's number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.curves import Curve, mean_curve
from altprop.reporting.epochs import best_record, selected_value
from altprop.reporting.runs import IRRELEVANT_KEYS, Run
from altprop.reporting.statistics import Statistic, statistic

METRICS = ("test/accuracy", "validation/accuracy")
"""If neither the user nor the paper names a metric, the first of these that the runs recorded is reported."""
COMPARABLE = ("last", "selected", "best")
"""The epochs whose value may be compared with the paper's."""
TARGET = "_target_"
"""The key of a node that names its class."""
IGNORED_KEYS = (*IRRELEVANT_KEYS, "paper")
"""Keys that do not distinguish the rows of an experiment, because they do not change what is computed."""


@dataclass(frozen=True)
class Paper:
    """The published number of a row, as stated in its experiment's ``paper`` node."""

    reference: str
    table: str
    metric: str
    value: float | None
    std: float | None
    seeds: int | None
    milestones: Mapping[str, Sequence[tuple[float, float]]]
    """Values published for earlier epochs: metric -> pairs of finished epochs and value."""


@dataclass(frozen=True)
class Row:
    """The runs of one experiment with one configuration, over seeds. All numbers come from finished runs only.

    ``last`` is the value at the last epoch; ``selected`` at the epoch that each run selected (by the validation split, unless
    configured otherwise); ``best`` at the best epoch of the reported metric itself, which is optimistic if that is on the test
    split. Accuracies are in percent, times in seconds.
    """

    name: str
    group: str
    variant: str
    """What distinguishes the row from the experiment's other rows: ``key=value …``."""
    changed: str
    """What the command lines of the finished runs changed in the experiment: ``key=value …``."""
    dataset: str
    model: str
    algorithm: str
    metric: str
    finished: Sequence[Run]
    unfinished: Sequence[Run]
    failed: Sequence[Run]
    last: Statistic | None
    selected: Statistic | None
    best: Statistic | None
    best_epoch: Statistic | None
    epochs: Statistic | None
    paper: Paper | None
    compared: str
    """Which of ``last``, ``selected`` and ``best`` is compared with the paper."""
    difference: float | None
    """Our mean minus the paper's value."""
    inside: bool | None
    """Whether the paper's value is inside our 95 % interval."""
    seconds: Statistic | None
    images_per_second: Statistic | None
    flops: Statistic | None
    """Floating-point operations of all training steps of a run."""
    peak_memory: Statistic | None
    """In bytes."""
    peak_memory_of: str
    """What was measured: ``tensors on the GPU``, ``process``, or both if the runs differ."""
    parameters: int | None
    nonzero: Statistic | None
    """Number of parameters that are not zero at the end."""
    binary_layers: Statistic | None
    binary_weights: Statistic | None
    """Number of weights in the layers that are binary at the end."""
    curve: Curve | None

    @property
    def label(self) -> str:
        """The experiment's name and what distinguishes the row from others of the same name."""
        return f"{self.name} {self.variant}".rstrip()

    @property
    def seeds(self) -> list[int]:
        """The seeds of the finished runs."""
        return sorted(run.seed for run in self.finished)

    @property
    def hardware(self) -> str:
        """The GPUs or CPUs that the finished runs were trained on."""
        return "; ".join(sorted({run.hardware for run in self.finished if run.hardware}))

    @property
    def mixed(self) -> str:
        """How the seeds differ in what should be equal: ``code``, ``threads``, both, or nothing (an empty string)."""
        names = [name for name in ("code", "threads") if len({getattr(run, name) for run in self.finished} - {""}) > 1]
        resumed = [name for name in ("code", "threads") if any(", then " in getattr(run, name) for run in self.finished)]
        return " and ".join(dict.fromkeys([*names, *resumed]))

    @property
    def commits(self) -> str:
        """The commits of the finished runs."""
        return ", ".join(sorted({run.commit for run in self.finished if run.commit}))


def collect_rows(
    runs: Iterable[Run], group_of: Callable[[Run], str], metric: str | None = None, compared: str = "last"
) -> list[Row]:
    """Combine ``runs`` into rows, sorted by name.

    Args:
        runs: The runs to report.
        group_of: Returns the same string for runs that differ only in their seed.
        metric: The metric to report for all rows; None reports the one that the paper names, or else the first of
            :data:`METRICS` that the runs recorded.
        compared: Which of :data:`COMPARABLE` is compared with the paper's value.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.name, group_of(run)].append(run)
    by_name: dict[str, list[list[Run]]] = defaultdict(list)
    for (name, _), members in groups.items():
        by_name[name].append(members)
    rows = []
    typed = {name: typed_variants(members) for name, members in by_name.items()}
    for (name, group), members in groups.items():
        variant = variant_of(members[0].config, [others[0].config for others in by_name[name]])
        if (short := typed[name].get(members[0].key)) is not None and len(short) < len(variant):
            variant = short
        rows.append(_row(name, group, variant, sorted(members, key=lambda run: run.seed), metric, compared))
    return sorted(rows, key=lambda row: (row.name, row.variant, row.group))


def _row(name: str, group: str, variant: str, runs: Sequence[Run], metric: str | None, compared: str) -> Row:
    finished = [run for run in runs if run.done]
    paper = paper_of(max(runs, key=lambda run: run.updated).config)
    metric = metric or (paper.metric if paper else None) or _recorded(runs)
    ends = [run.records[-1] for run in finished if run.records]
    bests = [record for run in finished if (record := best_record(run.records, metric, run.config)) is not None]
    values = {
        "last": [value for run in finished if (value := last_value(run.records, metric)) is not None],
        "selected": [value for run in finished if (value := selected_value(run, metric)) is not None],
        "best": [record[metric] for record in bests],
    }
    bounds = (0.0, 100.0) if "accuracy" in metric else (-math.inf, math.inf)
    statistics = {which: statistic(numbers, bounds) for which, numbers in values.items()}
    ours = statistics[compared]
    published = paper.value if paper is not None and paper.metric == metric else None
    config = runs[0].config
    return Row(
        name=name,
        group=group,
        variant=variant,
        changed=" ".join(sorted({word for run in finished for word in run.changed})),
        dataset=_label(config, "dataset"),
        model=_label(config, "model"),
        algorithm=_label(config, "algorithm"),
        metric=metric,
        finished=finished,
        unfinished=[run for run in runs if not run.done and run.status != "failed"],
        failed=[run for run in runs if run.status == "failed"],
        **statistics,
        best_epoch=statistic([record["epoch"] for record in bests]),
        epochs=statistic([run.epoch for run in finished]),
        paper=paper,
        compared=compared,
        difference=ours.mean - published if ours is not None and published is not None else None,
        inside=ours.contains(published) if ours is not None and published is not None else None,
        seconds=_statistic_of(ends, "time/elapsed"),
        images_per_second=_statistic_of(ends, "time/images_per_second"),
        flops=statistic([run.flops for run in finished if run.flops is not None]),
        peak_memory=statistic([run.peak_memory["bytes"] for run in finished if run.peak_memory]),
        peak_memory_of=", ".join(sorted({run.peak_memory["of"] for run in finished if run.peak_memory})),
        parameters=next((run.parameters for run in runs if run.parameters is not None), None),
        nonzero=_statistic_of(ends, "weights/nonzero_parameters"),
        binary_layers=_statistic_of(ends, "weights/binary_layers"),
        binary_weights=_statistic_of(ends, "weights/binary_weights"),
        curve=mean_curve([run.records for run in finished], metric),
    )


def last_value(records: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """``metric`` in the last record that contains it; None if there is no such record."""
    return next((record[metric] for record in reversed(records) if metric in record), None)


def paper_of(config: Mapping[str, Any]) -> Paper | None:
    """The ``paper`` node of a run's configuration; None if the experiment is not a row of a paper."""
    node = config.get("paper")
    if not isinstance(node, Mapping):
        return None
    return Paper(
        reference=str(node.get("reference") or ""),
        table=str(node.get("table") or ""),
        metric=str(node.get("metric") or METRICS[0]),
        value=node.get("value"),
        std=node.get("std"),
        seeds=node.get("seeds"),
        milestones={name: [(epoch, value) for epoch, value in points] for name, points in (node.get("milestones") or {}).items()},
    )


def variant_of(config: Mapping[str, Any], all_configs: Sequence[Mapping[str, Any]]) -> str:
    """What distinguishes ``config`` from the rest of ``all_configs``, as ``key=value …``; empty if there is only one.

    Nodes of different classes are distinguished by the class (``algorithm=Backprop``), without the keys that only one of the
    classes has.
    """
    if len(all_configs) < 2:
        return ""
    own, flattened = flatten(config), [flatten(other) for other in all_configs]
    words = []
    for key, value in sorted(own.items()):
        nodes = [f"{key[:end]}.{TARGET}" for end, letter in enumerate(key) if letter == "."]
        classes = [node for node in nodes if node != key]
        alike = [other for other in flattened if all(other.get(node) == own.get(node) for node in classes)]
        everywhere = all(key in other for other in flattened)
        if len({repr(other.get(key)) for other in (flattened if everywhere else alike)}) > 1:
            is_class = key.endswith(f".{TARGET}")
            words.append(f"{key.removesuffix(f'.{TARGET}')}={value.rpartition('.')[2]}" if is_class else f"{key}={value}")
    return " ".join(words)


def typed_variants(groups: Sequence[Sequence[Run]]) -> dict[str, str]:
    """What the command lines of ``groups``, the rows of one experiment, changed differently: ``model=convnet``.

    By the key of each group's first run. Empty if the commands do not distinguish the rows, or if the runs of a row were started
    by different commands.
    """
    words = [[tuple(run.changed) for run in runs] for runs in groups]
    if any(len(set(commands)) > 1 for commands in words) or len({commands[0] for commands in words}) < len(words):
        return {}
    shared = set.intersection(*(set(commands[0]) for commands in words))
    return {
        runs[0].key: " ".join(word for word in commands[0] if word not in shared)
        for runs, commands in zip(groups, words, strict=True)
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of ``config`` by dotted key, without :data:`IGNORED_KEYS`."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in IGNORED_KEYS:
            continue
        if isinstance(value, Mapping):
            values.update(flatten(value, f"{key}."))
        else:
            values[key] = value
    return values


def _recorded(runs: Iterable[Run]) -> str:
    names = {name for run in runs for record in run.records for name in record}
    return next((metric for metric in METRICS if metric in names), METRICS[0])


def _statistic_of(records: Sequence[Mapping[str, Any]], name: str) -> Statistic | None:
    return statistic([record[name] for record in records if name in record])


def _label(config: Mapping[str, Any], node: str) -> str:
    """The label of a node if it has one (data sets do), else the name of the class that it builds."""
    content = config.get(node) or {}
    return str(content.get("label") or str(content.get(TARGET, "")).rpartition(".")[2])
