"""What steps cost: against counts worked out by hand, and without a trace in what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.data.base import Data, LoadContext
from altprop.models.mlp import MLP
from altprop.nn.weights.base import WeightsRule
from altprop.tracking.metrics_file import read_metrics
from altprop.training.cost import FlopCounter, countable, peak_memory
from altprop.training.parts import Parts
from altprop.training.progress import Progress
from altprop.training.run import train
from tests.algorithms.harness import BATCH, NUM_CLASSES, STEPS_PER_EPOCH, TinySplit, Training, assert_equal
from tests.algorithms.registry import ALGORITHMS, LINEAR_HEAD
from tests.training.fixtures import TinyDataSet, make_parts

MLP_STEP = 2 * BATCH * (64 * 8 + 8 * NUM_CLASSES) * 2 + 2 * BATCH * 8 * NUM_CLASSES
"""Forward and the gradient of the weights of 64-8-4 units, and the gradient of the hidden layer, two operations each."""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_counted_step_of_every_algorithm_is_the_step_itself(name: str) -> None:
    plain, counted = Training(ALGORITHMS[name]), Training(ALGORITHMS[name])
    plain.algorithm.epoch_start(0)
    counted.algorithm.epoch_start(0)
    for number, (inputs, targets) in enumerate(plain.train_split.batches(0)):
        if number == 3:
            break
        expected = plain.algorithm.train_step(inputs, targets)
        if number == 2 or not countable(counted.algorithm):
            metrics = counted.algorithm.train_step(inputs, targets)
        else:
            with FlopCounter() as counter:
                metrics = counted.algorithm.train_step(inputs, targets)
            assert counter.flops > 0
        assert_equal(metrics, expected)
    if countable(counted.algorithm):
        assert_equal(counted.state(), plain.state())


def test_products_and_convolutions_are_counted_forward_and_backward() -> None:
    inputs = torch.rand(3, 2, 5, 5)
    layer = nn.Conv2d(2, 4, 3)
    with FlopCounter() as counter:
        loss = layer(inputs).relu().sum()
    forward = 2 * 3 * (4 * 3 * 3) * (2 * 3 * 3)
    assert counter.flops == forward
    with FlopCounter() as counter:
        loss.backward()
    assert counter.flops == forward  # of the weights alone: the images need no gradient


def test_a_run_records_operations_and_memory(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    status = train(parts)
    assert status["flops"] == 4 * STEPS_PER_EPOCH * MLP_STEP
    found = [record["cost/flops"] for record in read_metrics(parts.directory / "metrics.jsonl")]
    assert found == [epoch * STEPS_PER_EPOCH * MLP_STEP for epoch in (1, 2, 3, 4)]
    assert status["peak_memory"]["of"] == "process"
    # The kernel adds up pages per core, so a later peak may be a few pages lower.
    assert 2**20 < status["peak_memory"]["bytes"] <= 1.01 * peak_memory(torch.device("cpu"))["bytes"]


class ShortLastBatch(TinySplit):
    """The tiny split with a last mini-batch of ten."""

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (inputs, targets) in enumerate(super().batches(epoch, start), start=start):
            last = number == STEPS_PER_EPOCH - 1
            yield (inputs[:10], targets[:10]) if last else (inputs, targets)


class ShortLastBatchData(TinyDataSet):
    def load(self, context: LoadContext) -> Data:
        return replace(super().load(context), train=ShortLastBatch(1, shuffle=True))


def counting_all(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """FLOPs of every step that ``algorithm`` will make, each counted apart."""
    counts: list[int] = []
    plain = algorithm.train_step

    def train_step(inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        with FlopCounter() as counter:
            metrics = plain(inputs, targets)
        counts.append(counter.flops)
        return metrics

    monkeypatch.setattr(algorithm, "train_step", train_step)
    return counts


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_recorded_is_the_sum_of_all_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ALGORITHMS[name]
    algorithm = case.algorithm(WeightsRule())
    counts = counting_all(algorithm, monkeypatch)
    parts = replace(make_parts(tmp_path, algorithm=algorithm, duration="2ep"), data_set=ShortLastBatchData())
    status = train(replace(parts, model_factory=case.model))
    assert len(counts) == status["step"]
    assert status["flops"] == sum(counts)


def power_cut() -> Any:
    raise RuntimeError("power cut")


UNEVEN: dict[str, Any] = {
    "asynchronous": partial(AsynchronousGreedy, head=LINEAR_HEAD, buffer_size=3, slow_block=3, slowdown=2.0),
    "delayed": partial(DelayedGradients),
    "delayed, padded": partial(DelayedGradients, semantics="current", pad_batches=True),
    "replay": partial(DelayedGradients, semantics="replay"),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_steps_are_not_taken_for_one_another_nor_after_an_interruption(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four blocks; the run breaks off after its second step, where most of them have not learned anything yet."""

    def parts(folder: str, algorithm: Algorithm) -> Parts:
        made = make_parts(tmp_path / folder, algorithm=algorithm, duration="9st", checkpoint_every="1st")
        model = partial(MLP, hidden=(16, 12, 12), units=nn.ReLU)
        return replace(made, data_set=ShortLastBatchData(), model_factory=model)

    algorithm = UNEVEN[name]()
    counts = counting_all(algorithm, monkeypatch)
    straight = train(parts("straight", algorithm))
    assert len(set(counts)) > 2
    assert straight["flops"] == sum(counts)
    broken = UNEVEN[name]()
    made = counting_all(broken, monkeypatch)
    plain = broken.train_step
    monkeypatch.setattr(broken, "train_step", lambda *batch: plain(*batch) if len(made) < 2 else power_cut())
    with pytest.raises(RuntimeError, match="power cut"):
        train(parts("interrupted", broken))
    resumed = train(parts("interrupted", UNEVEN[name]()))
    assert resumed["step"] == straight["step"]
    assert resumed["flops"] == straight["flops"]


def test_a_checkpoint_of_an_earlier_version_is_read() -> None:
    """It held the cost of the epoch's first step, which is counted anew where it is wanted."""
    state = Progress(step=5, flops=70).state_dict()
    del state["flops_by_kind"]
    assert Progress.from_state({**state, "flops_per_step": 14}) == Progress(step=5, flops=70)


def test_compiled_steps_are_not_counted() -> None:
    algorithm = Training(next(iter(ALGORITHMS.values()))).algorithm
    assert countable(algorithm)
    algorithm.context = replace(algorithm.context, compile=True)
    assert not countable(algorithm)
