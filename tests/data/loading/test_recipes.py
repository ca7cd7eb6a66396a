"""Crops of large images against torchvision: equal for the same window, and equal in distribution."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp

from altprop._torchvision import import_torchvision
from altprop.data.loading.recipes import Crops, View, placed_window, random_resized_window
from tests.data.writers import smooth_image

import_torchvision()
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as reference  # noqa: E402


@pytest.mark.parametrize(("width", "height"), [(300, 260), (260, 401), (256, 256), (256, 300)])
def test_center_crop_equals_torchvisions_resize_and_center_crop(width, height):
    image = smooth_image(width, height)
    ours = View("centre_crop", 224, 256, 0.0).render(image, random.Random(0))
    theirs = np.asarray(v2.CenterCrop(224)(v2.Resize(256)(image)))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.01


def test_center_crop_without_scaling_copies_pixels():
    image = smooth_image(256, 300)
    ours = View("centre_crop", 224, None, 0.0).render(image, random.Random(0))
    assert np.array_equal(ours, np.asarray(v2.CenterCrop(224)(image)))


def test_random_resized_crop_equals_torchvision_for_the_same_window():
    image = smooth_image(300, 260)
    view = View("random_resized_crop", 224, None, 0.5)
    for seed in range(8):
        ours, window = view.render(image, random.Random(seed)), view.window(300, 260, random.Random(seed))
        theirs = reference.resized_crop(
            image, int(window.top), int(window.left), int(window.height), int(window.width), [224, 224]
        )
        theirs = reference.horizontal_flip(theirs) if window.flip else theirs
        assert np.array_equal(ours, np.asarray(theirs))


def test_random_crop_copies_pixels():
    image = smooth_image(256, 270)
    view = View("random_crop", 224, None, 0.5)
    corners = set()
    for seed in range(8):
        window = view.window(256, 270, random.Random(seed))
        left, top = int(window.left), int(window.top)
        expected = np.asarray(image)[top : top + 224, left : left + 224]
        ours = view.render(image, random.Random(seed))
        assert np.array_equal(ours, expected[:, ::-1] if window.flip else expected)
        corners.add((left, top))
    assert len(corners) > 4


@pytest.mark.parametrize(("width", "height"), [(500, 375), (200, 333), (100, 400)])
def test_random_resized_windows_have_torchvisions_distribution(width, height):
    count, stream = 4000, random.Random(1)
    ours = [random_resized_window(width, height, stream) for _ in range(count)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transform, image = v2.RandomResizedCrop(224), torch.empty(3, height, width)
        theirs = [transform.make_params([image]) for _ in range(count)]
    for key in ("left", "top", "width", "height"):
        assert ks_2samp([getattr(window, key) for window in ours], [params[key] for params in theirs]).pvalue > 1e-3


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**30))
def test_random_resized_windows_are_inside_the_image(width, height, seed):
    window = random_resized_window(width, height, random.Random(seed))
    assert 0 <= window.left <= window.left + window.width <= width
    assert 0 <= window.top <= window.top + window.height <= height
    assert min(window.width, window.height) >= 1 or min(width, height) == 1


@given(st.integers(30, 600), st.integers(30, 600), st.integers(8, 30), st.booleans(), st.booleans())
def test_placed_windows_are_inside_the_image(width, height, size, scaled, centered):
    window = placed_window(width, height, size, 30 if scaled else None, None if centered else random.Random(width))
    assert -1e-9 <= window.left <= window.left + window.width <= width + 1e-9
    assert -1e-9 <= window.top <= window.top + window.height <= height + 1e-9


def test_an_image_smaller_than_the_crop_is_rejected():
    with pytest.raises(ValueError, match="200x300"):
        placed_window(200, 300, 224, None, None)


def test_flips_have_the_configured_probability():
    view = View("centre_crop", 8, None, 0.3)
    flips = sum(view.window(8, 8, random.Random(seed)).flip for seed in range(4000))
    assert abs(flips / 4000 - 0.3) < 0.03


def test_evaluation_is_never_random():
    view = Crops(train="random_resized_crop", flip=0.5, size=224, resize=256).view(train=False)
    assert view == View("centre_crop", 224, 256, 0.0)
    image = Image.new("RGB", (300, 300))
    assert np.array_equal(view.render(image, random.Random(0)), view.render(image, random.Random(1)))


@pytest.mark.parametrize(
    ("config", "key"),
    [({"train": "crop"}, "train"), ({"flip": 2}, "flip"), ({"size": 0}, "size"), ({"size": 224, "resize": 200}, "resize")],
)
def test_values_out_of_range_are_problems(config, key):
    (problem,) = Crops.check(config, {})
    assert problem.key == f"dataset.crops.{key}"
    assert not list(Crops.check({"train": "random_crop", "flip": 0.5, "size": 224, "resize": None}, {}))
