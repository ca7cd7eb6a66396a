"""Batched augmentation against torchvision v2: equal for the same draws, and equal in distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop._torchvision import import_torchvision
from altprop.data.augmentation import Augmentation, crop_and_flip, draw, pad
from altprop.data.normalization import Normalization

import_torchvision()
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as reference  # noqa: E402

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
TORCHVISION_MODE = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def images(count: int, size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def normalized_by_torchvision(pixels: torch.Tensor) -> torch.Tensor:
    return reference.normalize(reference.to_dtype(pixels, torch.float32, scale=True), MEAN, STD)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "edge"])
def test_equals_torchvision_for_the_same_offsets_and_flips(mode):
    pixels, padding = images(40), 3
    draws = draw(Augmentation(padding=padding, padding_mode=mode, flip=0.5), 40, seed=0, epoch=0)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    normalize = Normalization.of(MEAN, STD, torch.device("cpu"))
    ours = normalize(crop_and_flip(pad(pixels, padding, mode), index, draws, 12, 12))
    for position in range(40):
        theirs = reference.pad(pixels[index[position]], [padding] * 4, padding_mode=TORCHVISION_MODE[mode])
        theirs = reference.crop(theirs, int(draws.top[position]), int(draws.left[position]), 12, 12)
        theirs = reference.horizontal_flip(theirs) if draws.flip[position] else theirs
        torch.testing.assert_close(ours[position], normalized_by_torchvision(theirs), atol=1e-6, rtol=0)
    assert 0 < draws.flip.sum() < 40


def test_zero_padding_is_black_before_normalization():
    normalize = Normalization.of(MEAN, STD, torch.device("cpu"))
    padded = normalize(pad(images(1), 4, "zeros"))
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(padded[0, :, 0, 0], black, atol=1e-6, rtol=0)


def test_flip_before_crop_equals_crop_before_flip_at_the_mirrored_offset():
    pixels, padding = images(30), 4
    draws = draw(Augmentation(padding=padding, padding_mode="edge", flip=1.0), 30, seed=0, epoch=0)
    crop_first = crop_and_flip(pad(pixels, padding, "edge"), torch.arange(30), draws, 12, 12)
    for position in range(30):
        flipped = pad(pixels[position : position + 1].flip(-1), padding, "edge")[0]
        top, left = int(draws.top[position]), 2 * padding - int(draws.left[position])
        assert torch.equal(crop_first[position], flipped[:, top : top + 12, left : left + 12])


def test_draws_have_torchvisions_distribution():
    """The position of one bright pixel reveals each image's offsets and flip; compared with torchvision by chi-square."""
    from scipy.stats import chi2_contingency

    count, size, padding = 8000, 10, 2
    pixels = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    pixels[:, :, 3, 2] = 255
    ours = crop_and_flip(
        pad(pixels, padding, "zeros"),
        torch.arange(count),
        draw(Augmentation(padding=padding, padding_mode="zeros", flip=0.5), count, 5, 0),
        size,
        size,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transform = v2.Compose([v2.RandomCrop(size, padding), v2.RandomHorizontalFlip()])
        theirs = torch.stack([transform(image) for image in pixels])
    counts = torch.stack([batch.flatten(1).argmax(1).bincount(minlength=size * size) for batch in (ours, theirs)])
    seen = counts.sum(0) > 0
    assert seen.sum() == 50  # 5 x 5 offsets, flipped or not
    assert chi2_contingency(counts[:, seen].numpy()).pvalue > 1e-3


@given(st.integers(0, 6), st.floats(0, 1), st.integers(0, 2**40), st.integers(0, 500))
def test_draws_are_in_range_and_depend_on_seed_and_epoch_only(padding, flip, seed, epoch):
    augmentation = Augmentation(padding=padding, padding_mode="zeros", flip=flip)
    first, again = (draw(augmentation, 64, seed, epoch) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("top", "left", "flip"))
    for offset in (first.top, first.left):
        assert 0 <= offset.min() <= offset.max() <= 2 * padding
    if flip in (0.0, 1.0):
        assert bool(first.flip.all()) == bool(first.flip.any()) == bool(flip)


def test_draws_differ_between_epochs_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second = (draw(Augmentation(padding=4, padding_mode="zeros", flip=0.5), 64, 0, epoch) for epoch in (0, 1))
    assert not torch.equal(first.top, second.top)
    assert torch.equal(before, torch.random.get_rng_state())


def test_too_much_mirrored_padding_is_rejected():
    with pytest.raises(ValueError, match="12x12"):
        pad(images(1), 12, "reflect")


@pytest.mark.parametrize(
    ("config", "key"),
    [({"padding": -1}, "padding"), ({"flip": 1.5}, "flip"), ({"padding_mode": "mirror"}, "padding_mode")],
)
def test_values_out_of_range_are_problems(config, key):
    (problem,) = Augmentation.check(config, {})
    assert problem.key == f"dataset.augmentation.{key}"
    assert not list(Augmentation.check({"padding": 4, "flip": 0.5, "padding_mode": "reflect"}, {}))
