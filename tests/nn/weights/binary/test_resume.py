"""A run that stops anywhere and is resumed gives the weights of one that never stopped (section 10, check 15)."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest
import torch

from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.binary.iterative import IterativeBinary
from tests.algorithms.harness import assert_equal
from tests.nn.weights.binary.driver import STEPS, Driver, batches, network

RULES = {
    "binary legacy": partial(Binary, epoch_end="legacy"),
    "binary exact": partial(Binary, epoch_end="exact", batch_norm_batches=3),
    "layer legacy": partial(IterativeBinary, epochs_per_layer=1, order=[2, 1, 3], epoch_end="legacy"),
    "layer exact": partial(IterativeBinary, epochs_per_layer=2, order="random", epoch_end="exact"),
    "layer options": partial(
        IterativeBinary, epochs_per_layer=1, order="reverse", epoch_end="legacy", clip=0.5, scale="channel", batch_norm_batches=2
    ),
}
EPOCHS = 4


def driver(name):
    return Driver(RULES[name](), network(dtype=torch.float32), optimizer=partial(torch.optim.Adam, lr=0.05), batches=single)


def single(epoch):
    return batches(epoch, torch.float32)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (1, 3), (2, 2), (3, 3)])
def test_resumes_in_the_middle_of_every_phase(name, stop):
    straight = driver(name)
    metrics = [straight.epoch(epoch) for epoch in range(EPOCHS)]
    interrupted = driver(name)
    at, step = stop
    for epoch in range(at):
        interrupted.epoch(epoch)
    if step:
        interrupted.epoch(at, last=step)
    state = copy.deepcopy(interrupted.algorithm.state_dict())
    resumed = driver(name)
    resumed.algorithm.load_state_dict(state)
    ends = [resumed.epoch(at, first=step), *(resumed.epoch(epoch) for epoch in range(at + 1, EPOCHS))]
    assert_equal(resumed.algorithm.state_dict(), straight.algorithm.state_dict())
    assert_equal(ends, metrics[at:])
    assert straight.losses[at * STEPS + step :] == resumed.losses


def test_evaluation_of_a_checkpoint_uses_the_flags_of_its_epoch():
    """Section 9, trap 14."""
    trained = driver("layer legacy")
    trained.epoch(0)
    trained.epoch(1)
    loaded = driver("layer legacy")
    loaded.algorithm.load_state_dict(copy.deepcopy(trained.algorithm.state_dict()))
    inputs = single(7)[0][0]
    assert [binarization.binary for binarization in loaded.rule.binarizations] == [True, True, False]
    assert torch.equal(loaded.scores(inputs), trained.scores(inputs))


def test_order_from_a_file_is_read_once(tmp_path):
    file = tmp_path / "order.json"
    names = ["features.0.linear", "features.1.linear", "classifier.linear"]
    file.write_text(json.dumps({"order": [3, 1, 2], "layers": names}))

    def new():
        return Driver(IterativeBinary(epochs_per_layer=1, order="from_sensitivity", order_file=str(file)), network())

    first = new()
    first.epoch(0)
    assert first.rule.positions == (3, 1, 2)
    state = copy.deepcopy(first.algorithm.state_dict())
    file.unlink()  # neither a resumed nor an evaluated run needs it
    resumed = new()
    resumed.algorithm.load_state_dict(state)
    resumed.epoch(1)
    first.epoch(1)
    assert resumed.rule.positions == (3, 1, 2)
    assert_equal(resumed.algorithm.state_dict(), first.algorithm.state_dict())
