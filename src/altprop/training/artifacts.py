"""The figures of a finished run: curves, confusion matrix, misclassified images, and those of the algorithm."""

from __future__ import annotations

import logging
from itertools import islice
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from altprop.data.base import Data, Split
from altprop.problems import message_of
from altprop.reporting.figures import run_figures
from altprop.reporting.figures.standard import draw_confusion, draw_curves, draw_mistakes
from altprop.tracking.base import Tracker
from altprop.tracking.metrics_file import read_metrics
from altprop.training.assembly import Assembly
from altprop.training.evaluation import answers
from altprop.training.rundir import RunDirectory
from altprop.training.settings import TrainerSettings

log = logging.getLogger(__name__)

SHEET_BYTES = 2**30
"""Test splits that need more memory than this as floats get no sheet of misclassified images."""


def draw_figures(run: Assembly, directory: RunDirectory, settings: TrainerSettings, tracker: Tracker) -> None:
    """Draw all figures into ``figures/`` and pass them to the trackers. A figure that fails is a warning, not a failed run."""
    title = f"{directory.name}, {directory.key}"
    drawn: list[Path] = []
    try:
        records = read_metrics(directory.metrics)
        drawn += run_figures.draw(records, directory.figures, title=title)
        run_figures.write_summaries(records, _sizes(run.data), directory.path)
        if settings.evaluate_test != "never":
            drawn += draw_answers(run, run.data.test, directory.figures, "test", settings.limit_batches)
        drawn += run.algorithm.figures(directory.figures)
    except Exception as error:  # a figure must not cost a trained network
        log.warning("figures: %s: %s", type(error).__name__, message_of(error))
    for path in drawn:
        tracker.figure(path.stem, path)


def rehearse() -> None:
    """Draw small figures and throw them away: Matplotlib loads fonts and more with the first ones."""
    record = {"epoch": 1.0, "train/loss": 1.0, "train/accuracy": 50.0}
    targets, scores = torch.tensor([0, 1]), torch.eye(2)[[1, 0]]
    with TemporaryDirectory() as folder:
        draw_curves([record], Path(folder) / "curves.png", title="0")
        draw_confusion(targets, 1 - targets, ["0", "1"], Path(folder) / "confusion.png")
        draw_mistakes(torch.zeros(2, 1, 2, 2), targets, scores, ["0", "1"], Path(folder) / "mistakes.png")


def draw_answers(run: Assembly, split: Split, folder: Path, title: str, limit_batches: int | None) -> list[Path]:
    """Confusion matrix and misclassified images of ``split``."""
    predictions = answers(run.algorithm, split, limit_batches=limit_batches)
    names = run.data.class_names
    drawn = [draw_confusion(predictions.targets, predictions.predicted, names, folder / "confusion.png", title=title)]
    if 4 * len(predictions.targets) * prod(run.data.input_shape) <= SHEET_BYTES:
        images = torch.cat([inputs.cpu() for inputs, _ in islice(split.batches(), limit_batches)])
        drawn.append(draw_mistakes(images, predictions.targets, predictions.scores, names, folder / "mistakes.png", title=title))
    return drawn


def _sizes(data: Data) -> dict[str, tuple[int, int]]:
    """Number of samples and mini-batch size of every split that is evaluated."""
    splits = {"train_plain": data.train_plain, "validation": data.validation, "test": data.test}
    return {name: (split.num_samples, split.batch_size) for name, split in splits.items() if split is not None}
