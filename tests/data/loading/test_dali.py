"""DALI, if installed, against worker processes: the same order and crops, and the same pixels except for rounding."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from altprop.data.errors import DataError
from altprop.data.files.folder import class_folders, list_images
from altprop.data.loading.recipes import RECIPES, Crops
from altprop.data.loading.stream import StreamSplit
from altprop.data.normalization import Normalization
from tests.data.writers import write_image_folder

INSTALLED = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
pytestmark = pytest.mark.skipif(not INSTALLED, reason="NVIDIA DALI is not installed")


@pytest.fixture
def listing(context):
    write_image_folder(context.root / "pets", {"train": 6}, [(200, 150), (160, 220)])
    folder = context.root / "pets/train"
    return list_images(folder, class_folders(folder))


def split(listing, context, loader, recipe="random_resized_crop", train=True):
    return StreamSplit(
        listing,
        Crops(train=recipe, flip=0.5, size=96, resize=128).view(train),
        loader=loader,
        workers=1,
        batch_size=5,
        normalization=Normalization.of([0.0], [1.0], context.device),
        context=context,
        train=train,
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_same_crops_in_the_same_order(listing, context, recipe):
    ours = list(split(listing, context, "torch", recipe).batches(1, 1))
    theirs = list(split(listing, context, "dali", recipe).batches(1, 1))
    assert len(ours) == len(theirs) == 2
    for (inputs, labels), (expected, expected_labels) in zip(theirs, ours):
        assert torch.equal(labels, expected_labels)
        assert (inputs - expected).abs().mean() < 0.02
        assert (inputs.flip(-1) - expected).abs().mean() > 0.05


def test_an_abandoned_pass_can_be_repeated(listing, context):
    images = split(listing, context, "dali")
    first = next(images.batches(3))
    again = next(images.batches(3))
    assert torch.equal(first[0], again[0])


@pytest.mark.parametrize("content", [b"not an image", "truncated"])
def test_a_corrupt_image_is_named(listing, context, content):
    path = listing.path(7)
    path.write_bytes(path.read_bytes()[:1500] if content == "truncated" else content)
    with pytest.raises(DataError) as caught:
        list(split(listing, context, "dali").batches())
    assert caught.value.path == path
