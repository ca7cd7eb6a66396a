"""Splits that stay on the device: order, exact resumption, shares of ranks and normalization."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from altprop.data.augmentation import Augmentation
from altprop.data.loading import device_split
from altprop.data.loading.device_split import device_splits, evaluation_split
from altprop.data.normalization import Normalization
from tests.device import META, no_transfers

CPU = torch.device("cpu")


def build(context, count=23, batch_size=5, augmentation=None, drop_last=False, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4)):
    pixels = torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train, plain = device_splits(
        pixels,
        torch.arange(count),
        batch_size=batch_size,
        eval_batch_size=7,
        drop_last=drop_last,
        normalization=Normalization.of(mean, std, CPU),
        augmentation=augmentation or Augmentation(),
        context=context,
    )
    return pixels, train, plain


AUGMENTED = Augmentation(padding=2, padding_mode="reflect", flip=0.5)


@pytest.mark.parametrize("augmentation", [Augmentation(), AUGMENTED], ids=["plain", "augmented"])
def test_a_pass_from_any_start_equals_the_rest_of_a_whole_pass(context, augmentation):
    _, train, _ = build(context, augmentation=augmentation)
    for epoch in (0, 1, 7):
        whole = list(train.batches(epoch))
        assert len(whole) == len(train) == 5
        for start in range(len(whole) + 1):
            rest = list(train.batches(epoch, start))
            assert len(rest) == len(whole) - start
            for (inputs, targets), (expected_inputs, expected_targets) in zip(rest, whole[start:]):
                assert torch.equal(inputs, expected_inputs)
                assert torch.equal(targets, expected_targets)


def test_every_epoch_has_a_different_order_of_all_images(context):
    _, train, _ = build(context)
    orders = [torch.cat([targets for _, targets in train.batches(epoch)]).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_images_belong_to_their_targets(context):
    pixels, train, plain = build(context)
    normalized = (pixels.double() / 255 - torch.tensor([0.3, 0.4, 0.5]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(
        3, 1, 1
    )
    for split in (train, plain):
        for inputs, targets in split.batches():
            torch.testing.assert_close(inputs.double(), normalized[targets].double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "edge"])
def test_plain_split_of_augmented_images_is_not_augmented(context, mode):
    _, _, plain = build(context, augmentation=Augmentation(padding=2, padding_mode=mode, flip=0.5))
    _, _, expected = build(context)
    for (inputs, targets), (expected_inputs, expected_targets) in zip(plain.batches(), expected.batches(epoch=5)):
        torch.testing.assert_close(inputs, expected_inputs, atol=1e-6, rtol=0)
        assert torch.equal(targets, expected_targets)


def test_augmented_order_is_the_plain_order(context):
    _, plain_train, _ = build(context)
    _, augmented, _ = build(context, augmentation=AUGMENTED)
    for (_, targets), (_, expected) in zip(augmented.batches(2), plain_train.batches(2)):
        assert torch.equal(targets, expected)


def test_images_too_many_to_store_as_floats_are_the_same(context, monkeypatch):
    _, floats, floats_plain = build(context)
    monkeypatch.setattr(device_split, "FLOAT_CACHE_BYTES", 0)
    _, pixels, pixels_plain = build(context)
    assert floats.images.dtype == torch.float32
    assert pixels.images.dtype == torch.uint8
    for one, other in ((floats, pixels), (floats_plain, pixels_plain)):
        for (inputs, _), (expected, _) in zip(one.batches(1), other.batches(1), strict=True):
            assert torch.equal(inputs, expected)


def test_drop_last(context):
    _, train, _ = build(context, drop_last=True)
    assert [len(targets) for _, targets in train.batches()] == [5] * 4
    assert (len(train), train.num_samples) == (4, 20)


def test_channels_last(context):
    _, train, plain = build(dataclasses.replace(context, channels_last=True), augmentation=AUGMENTED)
    for split in (train, plain):
        inputs, _ = next(split.batches())
        assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_keeps_file_order(context):
    pixels = torch.zeros(9, 1, 2, 2, dtype=torch.uint8)
    split = evaluation_split(pixels, torch.arange(9), 4, Normalization.of([0.0], [1.0], CPU), context)
    assert [targets.tolist() for _, targets in split.batches(3, 1)] == [[4, 5, 6, 7], [8]]
    assert split.num_samples == 9


@pytest.mark.parametrize("augmentation", [Augmentation(), AUGMENTED], ids=["plain", "augmented"])
def test_ranks_share_the_mini_batches_of_one_process(context, augmentation):
    _, alone, _ = build(context, count=22, batch_size=6, augmentation=augmentation)
    ranks = [
        build(dataclasses.replace(context, rank=rank, world_size=2), count=22, batch_size=6, augmentation=augmentation)[1]
        for rank in range(2)
    ]
    assert ranks[0].num_samples == alone.num_samples == 22
    for (inputs, targets), *shares in zip(alone.batches(4), *(rank.batches(4) for rank in ranks), strict=True):
        assert torch.equal(torch.cat([share[0] for share in shares]), inputs)
        assert torch.equal(torch.cat([share[1] for share in shares]), targets)


@pytest.mark.parametrize("augmentation", [Augmentation(), AUGMENTED], ids=["plain", "augmented"])
def test_batches_stay_on_the_device(context, augmentation):
    """Only the start of an epoch copies to the device, its order and draws; every later mini-batch is gathered there."""
    train, plain = device_splits(
        torch.empty(23, 3, 6, 6, dtype=torch.uint8, device=META),
        torch.empty(23, dtype=torch.int64, device=META),
        batch_size=5,
        eval_batch_size=7,
        drop_last=False,
        normalization=Normalization.of((0.5,), (0.2,), META),
        augmentation=augmentation,
        context=dataclasses.replace(context, device=META),
    )
    batches = train.batches()
    next(batches)
    with no_transfers():
        rest = [*batches, *plain.batches()]
    assert len(rest) == 4 + 4
    assert all(tensor.device == META for batch in rest for tensor in batch)
