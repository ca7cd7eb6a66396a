"""Rows of a report: runs that differ in nothing but the seed, summed up and held against the paper's number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altprop.reporting.curves import Curve, curve
from altprop.reporting.epochs import best_record, selected_value
from altprop.reporting.runs import NO_CHANGE, Run
from altprop.reporting.statistics import Statistic, statistic

METRICS = ("test/accuracy", "validation/accuracy")
"""What is reported where neither the user nor the paper names a metric: the first that the runs recorded."""
WHICH = ("last", "selected", "best")
TARGET = "_target_"
"""The key of a node that names its class."""
COMPARED_WITHOUT = (*NO_CHANGE, "paper")
"""Keys that do not tell two rows of one experiment apart: they change nothing of what is computed."""


@dataclass(frozen=True)
class Paper:
    """The published number of a row, as its experiment's ``paper`` node states it."""

    reference: str
    table: str
    metric: str
    value: float | None
    std: float | None
    seeds: int | None
    milestones: Mapping[str, Sequence[tuple[float, float]]]
    """Published values on the way: metric -> finished epochs and the value there."""


@dataclass(frozen=True)
class Row:
    """The runs of one experiment with one configuration, over seeds. Numbers are those of finished runs alone.

    ``last`` is the last epoch; ``selected`` the epoch that each run's own selection chose (the validation split, unless a run was
    told otherwise); ``best`` the best epoch of the reported metric itself, which is optimistic where that is the test split.
    Accuracies are in percent, times in seconds.
    """

    name: str
    group: str
    variant: str
    """What distinguishes it from the experiment's other rows: ``key=value …``."""
    changed: str
    """What the command lines of the finished runs changed of the experiment: ``key=value …``."""
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
    """Which of ``last``, ``selected`` and ``best`` is held against the paper."""
    difference: float | None
    inside: bool | None
    seconds: Statistic | None
    images_per_second: Statistic | None
    flops: Statistic | None
    """Floating-point operations of all training steps of a run."""
    peak_memory: Statistic | None
    """In bytes."""
    peak_memory_of: str
    """What it is the peak of: ``tensors on the GPU``, ``process``, or both where runs differ."""
    parameters: int | None
    nonzero: Statistic | None
    """Parameters that are not zero at the end."""
    binary_layers: Statistic | None
    binary_weights: Statistic | None
    """Weights of the layers that are binary at the end."""
    curve: Curve | None

    @property
    def seeds(self) -> list[int]:
        """Of the finished runs."""
        return sorted(run.seed for run in self.finished)

    @property
    def hardware(self) -> str:
        """What the finished runs were trained on."""
        return "; ".join(sorted({run.hardware for run in self.finished if run.hardware}))

    @property
    def commits(self) -> str:
        """The commits of the finished runs."""
        return ", ".join(sorted({run.commit for run in self.finished if run.commit}))


def collect(runs: Iterable[Run], group_of: Callable[[Run], str], metric: str | None = None, compared: str = "last") -> list[Row]:
    """The rows of ``runs``, in order of name; ``group_of`` says which runs differ in nothing but the seed.

    ``metric`` is reported for all of them (default: what the paper names, else the first of :data:`METRICS` that they recorded);
    ``compared``, one of :data:`WHICH`, is held against the paper's value.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.name, group_of(run)].append(run)
    of_name: dict[str, list[list[Run]]] = defaultdict(list)
    for (name, _), members in groups.items():
        of_name[name].append(members)
    rows = []
    for (name, group), members in groups.items():
        variant = variant_of(members[0].config, [others[0].config for others in of_name[name]])
        rows.append(_row(name, group, variant, sorted(members, key=lambda run: run.seed), metric, compared))
    return sorted(rows, key=lambda row: (row.name, row.variant, row.group))


def _row(name: str, group: str, variant: str, runs: Sequence[Run], metric: str | None, compared: str) -> Row:
    finished = [run for run in runs if run.done]
    paper = paper_of(max(runs, key=lambda run: run.updated).config)
    metric = metric or (paper.metric if paper else None) or _recorded(runs)
    ends = [run.records[-1] for run in finished if run.records]
    bests = [record for run in finished if (record := best_record(run.records, metric, run.config)) is not None]
    statistics = {
        "last": statistic([value for run in finished if (value := last_value(run.records, metric)) is not None]),
        "selected": statistic([value for run in finished if (value := selected_value(run, metric)) is not None]),
        "best": statistic([record[metric] for record in bests]),
    }
    chosen = statistics[compared]
    comparable = chosen is not None and paper is not None and paper.value is not None and paper.metric == metric
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
        difference=chosen.mean - paper.value if comparable and chosen and paper and paper.value is not None else None,
        inside=chosen.holds(paper.value) if comparable and chosen and paper and paper.value is not None else None,
        seconds=_ends(ends, "time/elapsed"),
        images_per_second=_ends(ends, "time/images_per_second"),
        flops=statistic([run.flops for run in finished if run.flops is not None]),
        peak_memory=statistic([run.peak_memory["bytes"] for run in finished if run.peak_memory]),
        peak_memory_of=", ".join(sorted({run.peak_memory["of"] for run in finished if run.peak_memory})),
        parameters=next((run.parameters for run in runs if run.parameters is not None), None),
        nonzero=_ends(ends, "weights/nonzero_parameters"),
        binary_layers=_ends(ends, "weights/binary_layers"),
        binary_weights=_ends(ends, "weights/binary_weights"),
        curve=curve([run.records for run in finished], metric),
    )


def last_value(records: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """``metric`` in the last record that holds it."""
    return next((record[metric] for record in reversed(records) if metric in record), None)


def paper_of(config: Mapping[str, Any]) -> Paper | None:
    """The ``paper`` node of a run's configuration; None where the experiment is no row of a paper."""
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
    """``key=value`` of what tells ``config`` from the rest of ``all_configs``; empty where there is one alone.

    A node of another class is named by it, ``algorithm=Backprop``, without the keys that only this class has.
    """
    if len(all_configs) < 2:
        return ""
    own, flattened = flat(config), [flat(other) for other in all_configs]
    told = []
    for key, value in sorted(own.items()):
        nodes = [f"{key[:end]}.{TARGET}" for end, letter in enumerate(key) if letter == "."]
        classes = [node for node in nodes if node != key]
        alike = [other for other in flattened if all(other.get(node) == own.get(node) for node in classes)]
        everywhere = all(key in other for other in flattened)
        if len({repr(other.get(key)) for other in (flattened if everywhere else alike)}) > 1:
            is_class = key.endswith(f".{TARGET}")
            told.append(f"{key.removesuffix(f'.{TARGET}')}={value.rpartition('.')[2]}" if is_class else f"{key}={value}")
    return " ".join(told)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of what distinguishes configurations, without :data:`COMPARED_WITHOUT`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in COMPARED_WITHOUT:
            continue
        if isinstance(value, Mapping):
            found.update(flat(value, f"{key}."))
        else:
            found[key] = value
    return found


def _recorded(runs: Iterable[Run]) -> str:
    names = {name for run in runs for record in run.records for name in record}
    return next((metric for metric in METRICS if metric in names), METRICS[0])


def _ends(ends: Sequence[Mapping[str, Any]], name: str) -> Statistic | None:
    return statistic([record[name] for record in ends if name in record])


def _label(config: Mapping[str, Any], node: str) -> str:
    """A data set's own label, else the name of the class that a node builds."""
    content = config.get(node) or {}
    return str(content.get("label") or str(content.get("_target_", "")).rpartition(".")[2])
