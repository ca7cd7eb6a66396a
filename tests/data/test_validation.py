"""The validation split: sizes, methods, index files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.data.errors import DataError
from altprop.data.validation import Validation


@given(st.integers(20, 300), st.floats(0.01, 0.9), st.sampled_from(["tail", "random", "stratified"]), st.integers(0, 2**32 - 1))
def test_splits_are_disjoint_and_complete(tmp_path_factory, count, share, how, seed):
    targets = np.arange(count) % 3
    validation = Validation(size=share, how=how, seed=seed)
    train, held_out = validation.split(targets, tmp_path_factory.getbasetemp())
    assert sorted([*train, *held_out]) == list(range(count))
    assert len(held_out) == count - round(count * (1 - share))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()


@pytest.mark.parametrize(
    ("num_samples", "size", "expected"),
    # The shares and sizes used in the papers: MNIST, CIFAR-10, SVHN with extra, ImageNet.
    [(60_000, 1 / 6, 10_000), (50_000, 0.2, 10_000), (604_388, 0.1, 60_439), (1_281_167, 0.1, 128_117), (60_000, 5000, 5000)],
)
def test_count(num_samples, size, expected):
    assert Validation(size=size).count(num_samples) == expected


def test_tail_takes_the_last_images(tmp_path):
    train, held_out = Validation(size=3).split(np.zeros(10), tmp_path)
    assert train.tolist() == list(range(7))
    assert held_out.tolist() == [7, 8, 9]


def test_random_is_numpys_seeded_permutation(tmp_path):
    train, held_out = Validation(size=4, how="random", seed=7).split(np.zeros(20), tmp_path)
    order = np.random.RandomState(7).permutation(20)
    assert train.tolist() == sorted(order[:16])
    assert held_out.tolist() == sorted(order[16:])


@given(st.lists(st.integers(0, 4), min_size=10, max_size=200), st.floats(0.1, 0.8))
def test_stratified_gives_every_class_its_share(tmp_path_factory, labels, share):
    targets = np.array(labels)
    _, held_out = Validation(size=share, how="stratified").split(targets, tmp_path_factory.getbasetemp())
    actual_share = len(held_out) / len(targets)
    for label in set(labels):
        assert abs((targets[held_out] == label).sum() - actual_share * (targets == label).sum()) < 1


def write(path, train, validation):
    if path.suffix == ".npz":
        np.savez(path, train=np.array(train, dtype=np.uint16), validation=np.array(validation, dtype=np.uint16))
    else:
        path.write_text(json.dumps({"train": train, "validation": validation}))


@pytest.mark.parametrize("name", ["split.json", "split.npz"])
def test_index_file(tmp_path, name):
    write(tmp_path / name, [5, 0, 2], [4, 1])
    train, held_out = Validation(file=name).split(np.zeros(6), tmp_path)
    assert train.tolist() == [0, 2, 5]
    assert held_out.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([0, 1], [1, 2], "twice"),
        ([0, 9], [1], "to 9"),
        ([-1], [1], "-1"),
        ([0.5], [1], "integers"),
        ([0], [], "integers"),
    ],
)
def test_index_file_that_does_not_fit_the_images_is_named(tmp_path, train, validation, message):
    write(tmp_path / "split.json", train, validation)
    with pytest.raises(DataError, match=message) as caught:
        Validation(file="split.json").split(np.zeros(6), tmp_path)
    assert caught.value.path == tmp_path / "split.json"


@pytest.mark.parametrize("content", ["{", '{"train": [1]}', "[1, 2]"])
def test_broken_index_file_is_named(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json"):
        Validation(file="split.json").split(np.zeros(6), tmp_path)


def test_problems(tmp_path):
    root = {"paths": {"data": str(tmp_path)}}

    def keys(**config):
        return [problem.key.removeprefix("dataset.validation.") for problem in Validation.check(config, root)]

    assert keys(size=-1) == ["size"]
    assert keys(size=1.5) == ["size"]
    assert keys(how="head") == ["how"]
    assert keys(seed=-1) == ["seed"]
    assert keys(file="split.json") == ["file"]
    assert keys(file="split.txt") == ["file"]
    write(tmp_path / "split.json", [0], [1])
    assert keys(file="split.json") == []
    assert keys(file="split.json", size=2) == ["size"]
    assert keys(size=0.2, how="stratified", seed=4) == []
