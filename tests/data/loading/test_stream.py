"""Streamed splits: order and draws depend on seed, epoch and position only; errors from workers arrive complete."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from altprop.data.errors import DataError
from altprop.data.files.folder import class_folders, list_images
from altprop.data.loading import stream
from altprop.data.loading.dali import cuda_index
from altprop.data.loading.decoding import num_workers
from altprop.data.loading.recipes import Crops
from altprop.data.loading.stream import StreamSplit, check_decoding
from altprop.data.normalization import Normalization
from tests.data.writers import write_image_folder

CROPS = Crops(size=24, resize=28)


@pytest.fixture
def listing(context):
    write_image_folder(context.root / "imagenet", {"train": 10, "val": 4}, [(40, 30), (33, 47)], ("n01", "n02"))
    folder = context.root / "imagenet/train"
    return list_images(folder, class_folders(folder))


def split(listing, context, *, train=True, workers=0, batch_size=6, drop_last=False, crops=CROPS):
    normalization = Normalization.of([0.5], [0.25], context.device)
    return StreamSplit(
        listing,
        crops.view(train),
        loader="torch",
        workers=workers,
        batch_size=batch_size,
        normalization=normalization,
        context=context,
        train=train,
        drop_last=drop_last,
    )


def same(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) and all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other))


def test_a_pass_from_any_start_equals_the_rest_of_a_whole_pass_with_any_number_of_workers(listing, context):
    whole = list(split(listing, context).batches(2))
    assert len(whole) == 4
    for workers, start in ((0, 0), (0, 2), (0, 4), (2, 0), (2, 3), (1, 4)):
        assert same(split(listing, context, workers=workers).batches(2, start), whole[start:])
    assert not same(split(listing, context).batches(3), whole)
    assert not same(split(listing, dataclasses.replace(context, seed=9)).batches(2), whole)


def test_every_epoch_has_a_different_order_of_all_images(listing, context):
    numbered = dataclasses.replace(listing, labels=np.arange(len(listing)))
    orders = [torch.cat([labels for _, labels in split(numbered, context).batches(epoch)]).tolist() for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_ranks_share_the_mini_batches_of_one_process(listing, context):
    alone = split(listing, context)
    ranks = [split(listing, dataclasses.replace(context, rank=rank, world_size=2)) for rank in range(2)]
    assert ranks[0].num_samples == alone.num_samples == 20
    joined = [
        tuple(torch.cat([share[side] for share in shares]) for side in range(2))
        for shares in zip(*(rank.batches(1) for rank in ranks), strict=True)
    ]
    assert same(joined, alone.batches(1))
    evaluation = [split(listing, dataclasses.replace(context, rank=rank, world_size=2), train=False) for rank in range(2)]
    assert sum(len(labels) for rank in evaluation for _, labels in rank.batches()) == 20


def test_drop_last_and_evaluation(listing, context):
    assert [len(labels) for _, labels in split(listing, context, drop_last=True).batches()] == [6, 6, 6]
    plain = split(listing, context, train=False, batch_size=8)
    assert [labels.tolist() for _, labels in plain.batches(1, 1)] == [[0] * 2 + [1] * 6, [1] * 4]
    assert same(plain.batches(0), plain.batches(1))


def test_images_are_normalized_and_in_the_configured_layout(listing, context):
    for channels_last, layout in ((False, torch.contiguous_format), (True, torch.channels_last)):
        inputs, _ = next(split(listing, dataclasses.replace(context, channels_last=channels_last), train=False).batches())
        assert inputs.shape == (6, 3, 24, 24)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous(memory_format=layout)
    with Image.open(listing.path(1)) as image:
        pixels = CROPS.view(train=False).render(image.convert("RGB"), random.Random(0))
    expected = (torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(inputs[1].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(listing, context, workers):
    before = torch.random.get_rng_state()
    list(split(listing, context, workers=workers).batches())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named_from_a_worker_too(listing, context, workers):
    path = listing.path(13)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        list(split(listing, context, workers=workers).batches())
    assert "action=check" in str(caught.value)
    assert caught.value.path == path
    assert len(caught.value.problems) == 1


def test_an_image_that_is_too_small_is_named(listing, context):
    Image.new("RGB", (20, 50)).save(listing.path(3))
    with pytest.raises(DataError, match=r"20x50 pixels, fewer than the crop.s 24x24") as caught:
        list(split(listing, context, crops=Crops(train="random_crop", flip=0.5, size=24, resize=None)).batches())
    assert caught.value.path == listing.path(3)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_ignore_signals(listing, context):
    whole = list(split(listing, context).batches())
    batches = split(listing, context, workers=2).batches()
    received = [next(batches), next(batches)]  # one from each worker, so both have started
    for worker in multiprocessing.active_children():
        for name in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, name)
    assert same([*received, *batches], whole)


def test_workers_and_loaders_are_checked(monkeypatch):
    assert [problem.key for problem in check_decoding({"workers": -1, "loader": "ffcv"})] == ["dataset.workers", "dataset.loader"]
    assert not list(check_decoding({"workers": None, "loader": "torch"}))
    monkeypatch.setattr(stream, "find_spec", lambda name: None)
    (problem,) = check_decoding({"loader": "dali"})
    assert problem.fix.startswith("pip install nvidia-dali")
    assert num_workers(3) == 3
    assert 1 <= num_workers(None) <= 16


def test_every_process_decodes_on_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert cuda_index(torch.device("cuda")) == 3
    assert cuda_index(torch.device("cuda", 1)) == 1
