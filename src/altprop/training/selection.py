"""Which checkpoint is the best one, and on what grounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)


def selection_metric(select_on: str, has_validation: bool) -> str | None:
    """The metric that chooses the best checkpoint, or None where the last one counts. Selecting on test is said loudly."""
    if select_on == "test":
        log.warning(
            "the best checkpoint is chosen ON THE TEST SPLIT (trainer.select_on=test): "
            "the test accuracy of that checkpoint is not an estimate of anything"
        )
        return "test/accuracy"
    if select_on == "last" or (select_on == "auto" and not has_validation):
        return None
    return "validation/accuracy"


def warn_of_stopping_on_test(metric: str) -> None:
    """Say loudly that the length of the run depends on the test split, if it does."""
    if metric.startswith("test/"):
        log.warning(
            "the run ends when %s stops improving: it is fitted TO THE TEST SPLIT (trainer.early_stopping.metric), "
            "and its test accuracy is not an estimate of anything",
            metric,
        )


def is_better(record: Mapping[str, float], best: Mapping[str, float], metric: str) -> bool:
    """Whether ``record`` is strictly better than ``best`` (any is, when there is none yet)."""
    return not best or record[metric] > best[metric]


def monitored_value(record: Mapping[str, float], metric: str) -> float:
    """The value of ``metric`` turned so that lower is better."""
    return -record[metric] if metric.endswith("accuracy") else record[metric]
