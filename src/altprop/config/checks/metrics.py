"""Checks of the config group ``metrics``: names, and what a metric may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from altprop.config.checks.nodes import Place
from altprop.config.checks.targets import Signature, Target
from altprop.config.plain import UNRESOLVED
from altprop.nn.metrics.base import is_torchmetric
from altprop.nn.metrics.names import RESERVED, higher_is_better
from altprop.problems import Problem

METRIC = Place(partial=True)
"""The place of every node ``metrics.<name>``; :func:`metric_place` completes it."""


def metrics_problems(metrics: Any) -> Iterator[Problem]:
    """The problems of the names of the run's own metrics."""
    if metrics is None or metrics is UNRESOLVED:
        return
    if not isinstance(metrics, Mapping):
        yield Problem("metrics", f"{metrics} is not a choice", "a choice of conf/metrics, or nodes by name", "metrics=top5")
        return
    for name, node in metrics.items():
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)):
            yield Problem(f"metrics.{name}", "is not a name", "letters, digits and _ , starting with a letter")
        elif name in RESERVED:
            yield Problem(
                f"metrics.{name}", "every run has a metric of this name", f"not {', '.join(RESERVED)}", f"~metrics.{name}"
            )
        if node is not UNRESOLVED and not (isinstance(node, Mapping) and "_target_" in node):
            allowed = "{_target_: <function or class>, _partial_: true}"
            yield Problem(f"metrics.{name}", "has no _target_", allowed, f"+metrics.{name}._target_=…")


def metric_problem(key: str, target: Target) -> Problem | None:
    """The problem of what the metric at ``key`` builds, or of its name, which says whether higher is better."""
    if isinstance(target, type) and not is_torchmetric(target):
        allowed = "a function of (scores, targets), or a class derived from torchmetrics.Metric"
        return Problem(f"{key}._target_", f"{target.__qualname__} is another class", allowed)
    if getattr(target, "higher_is_better", None) is False and higher_is_better(key):
        name = getattr(target, "__name__", "the metric")
        allowed = "the name of a metric that falls ends in loss or error"
        return Problem(key, f"lower values of {name} are better", allowed, f"~{key} +{key}_error=…")
    return None


def metric_place(signature: Signature | None) -> Place:
    """What a metric with ``signature`` must be: a partial, whose first two arguments, scores and targets, altprop supplies."""
    return Place(partial=True, supplied=tuple(signature.parameters)[:2] if signature is not None else ())
