"""Evaluation of a trained run, from one of its checkpoints, on any split of any data set of the same shape."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from altprop.data.base import Split
from altprop.faults import describe
from altprop.files import append_line
from altprop.problems import ConfigError, Problem
from altprop.tracking.status_file import read_status
from altprop.training.artifacts import draw_answers
from altprop.training.assembly import Assembly, load_data
from altprop.training.evaluation import SHARES, evaluate
from altprop.training.parts import DataSet, Parts
from altprop.training.trained import load_trained

log = logging.getLogger(__name__)

SPLITS = ("test", "validation", "train")
INFORMATION = ("split", "dataset", "checkpoint", "step", "samples", "limit_batches", "evaluated_at")
"""Entries of a result that are not metrics."""


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate. If ``data_set`` is None, it is the run's own; ``checkpoint`` is ``last``, ``best`` or ``auto``."""

    split: str = "test"
    checkpoint: str = "auto"
    data_set: DataSet | None = None
    data_name: str | None = None
    limit_batches: int | None = None
    figures: bool = True


def evaluate_run(parts: Parts, evaluation: Evaluation) -> dict[str, Any]:
    """Evaluate the run of ``parts``, append the result to its ``evaluations.jsonl`` and return it.

    The metrics are those of the training records, so the run's own test split gives the values that training reported. Raises
    ConfigError for a split that does not exist or a data set of another shape, and RunFailed if there is no usable checkpoint.
    """
    directory = parts.directory
    trained = load_trained(parts, evaluation.checkpoint)
    run = trained.run
    if evaluation.data_set is not None:
        run = _with_other_data(run, parts, evaluation.data_set)
    split = choose_split(run, evaluation.split)
    metrics = evaluate(run.algorithm, split, limit_batches=evaluation.limit_batches)
    result = {
        "split": evaluation.split,
        "dataset": evaluation.data_name,
        "checkpoint": trained.path.name,
        "step": trained.state["step"],
        "samples": split.num_samples,
        "limit_batches": evaluation.limit_batches,
        "evaluated_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **metrics,
    }
    recorded = (read_status(directory) or {}).get("best", {}).get("step")
    if evaluation.checkpoint != "last" and recorded not in (None, result["step"]):
        log.warning("the best evaluation was at step %s, but the run was stopped before it saved that step", recorded)
    try:
        append_line(directory / "evaluations.jsonl", json.dumps(result))
        if evaluation.figures:
            label = "-".join(filter(None, ("evaluation", evaluation.data_name, evaluation.split)))
            draw_answers(run, split, directory / "figures" / label, evaluation.split, evaluation.limit_batches)
            list(run.algorithm.figures(directory / "figures" / label))
    except OSError as error:  # the folder may be somebody else's
        log.warning("the result is not stored: %s", describe(error, directory) or error)
    return result


def choose_split(run: Assembly, name: str) -> Split:
    """The split ``name``; ``train`` is the training images without augmentation."""
    split = {"test": run.data.test, "validation": run.data.validation, "train": run.data.train_plain}[name]
    if split is None:
        raise ConfigError(
            [Problem("split", "this data set was loaded without a validation split", "test or train", "split=test")]
        )
    return split


def _with_other_data(run: Assembly, parts: Parts, data_set: DataSet) -> Assembly:
    """The same algorithm with another data set of the same shape and number of classes."""
    data = load_data(parts, run.context.device, data_set=data_set)
    mine, other = (run.data.input_shape, run.data.num_classes), (data.input_shape, data.num_classes)
    if mine != other:
        raise ConfigError(
            [Problem("dataset", f"images {other[0]} of {other[1]} classes", f"this network takes {mine[0]} of {mine[1]}")]
        )
    return replace(run, data=data)


def summary(result: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    metrics = ", ".join(
        f"{name} {value:.2f} %" if name.rpartition("/")[2] in SHARES else f"{name} {value:.4f}"
        for name, value in result.items()
        if name not in INFORMATION
    )
    data = f" of {result['dataset']}" if result["dataset"] else ""
    return f"{result['checkpoint']} (step {result['step']}) on {result['samples']:,} {result['split']} images{data}: {metrics}"
