"""Selection of the best checkpoint, and early stopping."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from altprop.nn.metrics.names import higher_is_better

log = logging.getLogger(__name__)


def selection_metric(select_on: str, has_validation: bool) -> str | None:
    """The metric that selects the best checkpoint, or None to use the last one. Prints a warning if it is a test metric."""
    if select_on == "test":
        log.warning(
            "the best checkpoint is selected ON THE TEST SPLIT (trainer.select_on=test): "
            "the test accuracy of that checkpoint is not an estimate of anything"
        )
        return "test/accuracy"
    if "/" in select_on:
        if select_on.startswith("test/"):
            log.warning("the best checkpoint is selected ON THE TEST SPLIT (trainer.select_on=%s)", select_on)
        return select_on
    if select_on == "last" or (select_on == "auto" and not has_validation):
        return None
    return "validation/accuracy"


def warn_of_stopping_on_test(metric: str) -> None:
    """Print a warning if early stopping depends on the test split."""
    if metric.startswith("test/"):
        log.warning(
            "the run ends when %s stops improving: its length is fitted TO THE TEST SPLIT (trainer.early_stopping.metric), "
            "and its test accuracy is not an estimate of anything",
            metric,
        )


def is_better(record: Mapping[str, float], best: Mapping[str, float], metric: str) -> bool:
    """Whether ``record`` is strictly better than ``best``, or ``best`` is empty."""
    return not best or monitored_value(record, metric) < monitored_value(best, metric)


def monitored_value(record: Mapping[str, float], metric: str) -> float:
    """The value of ``metric``, negated if higher is better."""
    return -record[metric] if higher_is_better(metric) else record[metric]
