"""What steps cost: against counts worked out by hand, and without a trace in what is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from altprop.tracking.metrics_file import read_metrics
from altprop.training.cost import FlopCounter, countable, counted_step, peak_memory
from altprop.training.run import train
from tests.algorithms.harness import BATCH, NUM_CLASSES, STEPS_PER_EPOCH, Training, assert_equal
from tests.algorithms.registry import ALGORITHMS
from tests.training.fixtures import make_parts

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
            metrics, flops = counted_step(counted.algorithm, inputs, targets)
            assert flops > 0
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
    assert 2**20 < status["peak_memory"]["bytes"] <= peak_memory(torch.device("cpu"))["bytes"]


def test_compiled_steps_are_not_counted() -> None:
    algorithm = Training(next(iter(ALGORITHMS.values()))).algorithm
    assert countable(algorithm)
    algorithm.context = replace(algorithm.context, compile=True)
    assert not countable(algorithm)
