"""The run's own metrics: recorded on every split and in training, used for selection and early stopping."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from altprop._torchvision import import_torchvision
from altprop.nn.metrics.base import Metric
from altprop.nn.metrics.functions import top_k
from altprop.problems import ConfigError
from altprop.testing import ALGORITHMS, NUM_CLASSES, SAMPLES, Training
from altprop.tracking.metrics_file import read_metrics
from altprop.training.evaluation import answers, evaluate
from altprop.training.run import train
from tests.training.fixtures import make_parts

TOP2 = Metric("top2", partial(top_k, k=2))


def confidence_error(scores: Tensor, targets: Tensor) -> Tensor:
    return 1 - scores.softmax(dim=1).gather(1, targets[:, None])[:, 0]


def with_metrics(folder: Path, *metrics: Metric, **settings: Any) -> tuple[list[dict[str, Any]], Path]:
    """The records of a run with ``metrics``, and its directory."""
    parts = replace(make_parts(folder, **settings), metrics={metric.name: metric for metric in metrics})
    train(parts)
    return read_metrics(parts.directory / "metrics.jsonl"), parts.directory


def test_they_are_recorded_on_every_split_and_in_training(tmp_path: Path) -> None:
    records, _ = with_metrics(tmp_path, TOP2, Metric("confidence_error", confidence_error), evaluate_train=True)
    for record in records:
        for split in ("train", "train_plain", "validation", "test"):
            assert 0 <= record[f"{split}/confidence_error"] <= 1
            assert record[f"{split}/accuracy"] <= record[f"{split}/top2"] <= 100


@pytest.mark.parametrize("name", ALGORITHMS)
def test_they_do_not_depend_on_batches_and_cover_every_answer(name: str) -> None:
    training = Training(ALGORITHMS[name], metrics={"top2": TOP2}).run(6)
    result = training.evaluate()
    whole = answers(training.algorithm, training.test_split)
    assert result["top2"] == pytest.approx(float(top_k(whole.scores, whole.targets, k=2).mean()))
    assert {key for key in result if key.endswith("accuracy")} == {
        key.replace("top2", "accuracy") for key in result if key.endswith("top2")
    }
    training.algorithm.epoch_start(1)
    metrics = training.algorithm.train_step(*next(training.train_split.batches()))
    assert 0 <= float(metrics["top2"]) <= 100


def test_other_numbers_do_not_change(tmp_path: Path) -> None:
    plain, _ = with_metrics(tmp_path / "plain")
    own, _ = with_metrics(tmp_path / "own", TOP2)
    for one, other in zip(plain, own, strict=True):
        kept = {name: value for name, value in other.items() if not name.endswith("top2")}
        assert {name: value for name, value in one.items() if not name.startswith("time/")} == {
            name: value for name, value in kept.items() if not name.startswith("time/")
        }


def test_a_class_of_torchmetrics_accumulates_over_the_split() -> None:
    import_torchvision()  # torchmetrics imports it
    pytest.importorskip("torchmetrics")
    from torchmetrics.classification import MulticlassF1Score

    metric = Metric("f1", partial(MulticlassF1Score, average="macro"))
    training = Training(ALGORITHMS["decoupled_greedy"], metrics={"f1": metric}).run(3)
    result = evaluate(training.algorithm, training.test_split)
    whole = answers(training.algorithm, training.test_split)
    expected = MulticlassF1Score(num_classes=NUM_CLASSES, average="macro")(whole.scores, whole.targets)
    assert result["f1"] == pytest.approx(float(expected))
    assert "block1/f1" in result
    assert len(whole.targets) == SAMPLES
    assert "f1" not in training.algorithm.train_step(*next(training.train_split.batches()))


def test_selection_and_early_stopping_use_them(tmp_path: Path) -> None:
    stopping = {"metric": "validation/confidence_error", "patience": 1, "min_delta": 10.0}
    from altprop.training.settings import EarlyStopping

    metric = Metric("confidence_error", confidence_error)
    records, directory = with_metrics(
        tmp_path, metric, select_on="validation/confidence_error", early_stopping=EarlyStopping(**stopping)
    )
    assert len(records) == 2  # nothing improves by 10
    best = torch.load(directory / "checkpoints" / "best.pt", weights_only=True)
    lowest = min(records, key=lambda record: record["validation/confidence_error"])
    assert best["step"] == lowest["step"]


def test_a_metric_that_fails_is_one_line_before_anything_is_written(tmp_path: Path) -> None:
    def broken(scores: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("nothing here")

    with pytest.raises(ConfigError, match=r"^metrics\.broken: KeyError: 'nothing here'"):
        with_metrics(tmp_path, Metric("broken", broken))
    assert not list(tmp_path.iterdir())
