"""MNIST, CIFAR and SVHN from small files in their formats, compared with torchvision's readers of the same files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from altprop._torchvision import import_torchvision
from altprop.data.augmentation import Augmentation
from altprop.data.errors import DataError
from altprop.data.sets.cifar import CIFAR10, CIFAR100
from altprop.data.sets.mnist import MNIST, FashionMNIST
from altprop.data.sets.svhn import SVHN, resize
from altprop.data.validation import Validation
from altprop.problems import ConfigError
from tests.data.writers import random_pixels, write_cifar10, write_cifar100, write_mnist, write_svhn

GRAY = {"batch_size": 10, "eval_batch_size": 16, "mean": [0.1307], "std": [0.3081]}
COLOR = {"batch_size": 10, "eval_batch_size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST])
def test_mnist_equals_torchvision(context, dataset):
    write_mnist(context.root, dataset.folder)
    raw = dataset(**GRAY).read(context.root)
    reader = getattr(import_torchvision().datasets, dataset.__name__)
    for images, train in ((raw.train, True), (raw.test, False)):
        theirs = reader(context.root, train=train)
        assert np.array_equal(images.pixels[:, 0], theirs.data.numpy())
        assert np.array_equal(images.labels, theirs.targets.numpy())
    assert raw.class_names == dataset.class_names
    if dataset is FashionMNIST:
        assert list(raw.class_names) == reader.classes


def test_mnist_loads(context):
    write_mnist(context.root)
    data = MNIST(**GRAY, validation=Validation(size=10)).load(context)
    assert data.input_shape == (1, 28, 28)
    assert data.num_classes == 10
    assert (data.train.num_samples, data.train_plain.num_samples, data.validation.num_samples, data.test.num_samples) == (
        30,
        30,
        10,
        20,
    )
    inputs, targets = next(data.train.batches())
    assert inputs.shape == (10, 1, 28, 28)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    pixels = torch.cat([inputs for inputs, _ in data.validation.batches()])
    assert torch.equal(pixels, data.validation.images)


def test_limits_keep_the_first_images_after_validation(context):
    write_mnist(context.root)
    data = MNIST(**GRAY, validation=Validation(size=4), limit_train=7, limit_test=3).load(context)
    _, targets = next(data.train_plain.batches())
    assert targets.tolist() == list(range(7))
    assert (data.validation.num_samples, data.test.num_samples) == (4, 3)


def test_cifar10(context):
    arrays = write_cifar10(context.root)
    raw = CIFAR10(**COLOR).read(context.root)
    expected = np.concatenate([arrays[name] for name in CIFAR10.train_files]).reshape(-1, 3, 32, 32)
    assert np.array_equal(raw.train.pixels, expected)
    assert np.array_equal(raw.test.pixels, arrays["test_batch"].reshape(-1, 3, 32, 32))
    assert raw.train.labels.tolist() == list(range(10)) * 5
    assert raw.class_names[3] == "class 3"


def test_cifar_equals_torchvision(context, monkeypatch):
    datasets = import_torchvision().datasets
    write_cifar10(context.root)
    write_cifar100(context.root)
    for dataset in (CIFAR10, CIFAR100):
        raw, reader = dataset(**COLOR).read(context.root), getattr(datasets, dataset.__name__)
        for table in ("train_list", "test_list"):
            monkeypatch.setattr(reader, table, [[name, None] for name, _ in getattr(reader, table)])
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": None})
        for images, train in ((raw.train, True), (raw.test, False)):
            theirs = reader(context.root, train=train)
            assert np.array_equal(images.pixels.transpose(0, 2, 3, 1), theirs.data)
            assert images.labels.tolist() == theirs.targets
        assert list(raw.class_names) == theirs.classes


def test_svhn_equals_torchvision(context, monkeypatch):
    write_svhn(context.root, {"train": 25, "test": 15, "extra": 12})
    reader = import_torchvision().datasets.SVHN
    monkeypatch.setattr(reader, "split_list", {split: [url, name, None] for split, (url, name, _) in reader.split_list.items()})
    raw = SVHN(**COLOR, extra=True).read(context.root)
    theirs = {split: reader(context.root / "svhn", split) for split in ("train", "extra", "test")}
    assert np.array_equal(raw.train.pixels, np.concatenate([theirs["train"].data, theirs["extra"].data]))
    assert np.array_equal(raw.train.labels, np.concatenate([theirs["train"].labels, theirs["extra"].labels]))
    assert np.array_equal(raw.test.pixels, theirs["test"].data)
    assert len(SVHN(**COLOR).read(context.root).train) == 25


def test_svhn_is_resized_as_by_pillow(context):
    from PIL import Image

    pixels = random_pixels(3, 3, 32, 32)
    for size in (40, 24):
        ours = resize(pixels, size)
        for image, resized in zip(pixels, ours):
            theirs = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
            difference = np.asarray(theirs).transpose(2, 0, 1).astype(int) - resized
            assert np.abs(difference).max() <= 1
    write_svhn(context.root, {"train": 25, "test": 15})
    assert SVHN(**COLOR, image_size=40).load(context).input_shape == (3, 40, 40)


@pytest.mark.parametrize(
    ("dataset", "write", "file"),
    [
        (MNIST, write_mnist, "MNIST/raw/t10k-images-idx3-ubyte"),
        (CIFAR10, write_cifar10, "cifar-10-batches-py/data_batch_4"),
        (CIFAR100, write_cifar100, "cifar-100-python/test"),
        (SVHN, lambda root: write_svhn(root, {"train": 9, "test": 9}), "svhn/train_32x32.mat"),
    ],
)
def test_a_truncated_download_is_named(context, dataset, write, file):
    write(context.root)
    path = context.root / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        dataset(**(GRAY if dataset is MNIST else COLOR)).load(context)
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_labels_that_do_not_fit_are_named(context):
    write_mnist(context.root)
    (context.root / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(
        (context.root / "MNIST/raw/t10k-labels-idx1-ubyte").read_bytes()
    )
    with pytest.raises(DataError, match="train-labels-idx1-ubyte has 20 labels"):
        MNIST(**GRAY).load(context)


NODE = {"batch_size": 10, "eval_batch_size": 10, "mean": [0.5], "std": [0.5], "validation": {"size": 0}}


@pytest.mark.parametrize(
    ("dataset", "write", "folder"),
    [
        (MNIST, write_mnist, "MNIST/raw"),
        (FashionMNIST, lambda root: write_mnist(root, "FashionMNIST"), "FashionMNIST/raw"),
        (CIFAR10, write_cifar10, "cifar-10-batches-py"),
        (CIFAR100, write_cifar100, "cifar-100-python"),
        (SVHN, lambda root: write_svhn(root, {"train": 9, "test": 9}), "svhn"),
    ],
)
def test_missing_files_are_reported_in_one_line_with_folder_layout_and_command(tmp_path, dataset, write, folder):
    root = {"paths": {"data": str(tmp_path)}}
    (problem,) = dataset.check(NODE, root)
    line = str(problem)
    assert "\n" not in line
    assert str(tmp_path / folder) in line
    assert f"python data.py action=fetch dataset={dataset.name} paths.data={tmp_path}" in line
    write(tmp_path)
    assert not list(dataset.check(NODE, root))


def test_values_out_of_range_are_problems(tmp_path):
    write_mnist(tmp_path)
    root = {"paths": {"data": str(tmp_path)}}

    def keys(**changes):
        return [problem.key for problem in MNIST.check({**NODE, **changes}, root)]

    assert keys(batch_size=0) == ["dataset.batch_size"]
    assert keys(eval_batch_size=-3) == ["dataset.eval_batch_size"]
    assert keys(limit_train=0) == ["dataset.limit_train"]
    assert keys(mean=[0.1, 0.2, 0.3]) == ["dataset.mean"]
    assert keys(std=[0.0]) == ["dataset.std"]
    assert keys(validation={"size": 60_000}) == ["dataset.validation.size"]
    assert keys(validation={"size": 59_999}) == []
    assert keys(limit_train=None, drop_last=True) == []


def test_svhn_values_out_of_range_are_problems(tmp_path):
    root = {"paths": {"data": str(tmp_path)}}
    keys = [
        problem.key for problem in SVHN.check({**NODE, "image_size": 0, "validation": {"size": 80_000}, "extra": False}, root)
    ]
    assert keys == ["dataset.image_size", "dataset.validation.size", "dataset"]
    (problem,) = SVHN.check({**NODE, "image_size": 40, "validation": {"size": 80_000}, "extra": True}, root)
    assert "extra_32x32.mat" in str(problem)
    assert "dataset.extra=true" in problem.fix


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"validation": Validation(size=40)}, "dataset.validation.size"),
        ({"mean": [0.1, 0.2]}, "dataset.mean"),
        ({"augmentation": Augmentation(padding=28, padding_mode="reflect")}, "dataset.augmentation.padding"),
        ({"batch_size": 50, "drop_last": True}, "dataset.batch_size"),
    ],
)
def test_settings_that_do_not_fit_the_files_are_problems(context, settings, key):
    write_mnist(context.root)
    with pytest.raises(ConfigError) as caught:
        MNIST(**{**GRAY, **settings}).load(context)
    assert [problem.key for problem in caught.value.problems] == [key]
