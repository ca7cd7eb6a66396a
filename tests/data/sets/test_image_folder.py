"""Your own images: kept on the device if they fit, streamed otherwise; and the cache of decoded pixels."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from altprop.data.augmentation import Augmentation
from altprop.data.errors import DataError
from altprop.data.files.folder import list_images, open_image
from altprop.data.loading import dali, pixel_cache
from altprop.data.loading.decoding import Decoding
from altprop.data.loading.device_split import ShuffledSplit
from altprop.data.loading.recipes import Crops
from altprop.data.loading.stream import StreamSplit
from altprop.data.sets.image_folder import ImageFolder
from altprop.data.validation import Validation
from altprop.problems import ConfigError
from tests.data.writers import write_image_folder

SETTINGS = {"folder": "pets", "batch_size": 4, "eval_batch_size": 5, "mean": [0.5], "std": [0.25]}
IMAGES = {"train": 6, "test": 3}


def test_images_of_equal_size_are_kept_on_the_device(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    data = ImageFolder(**SETTINGS, augmentation=Augmentation(padding=2, padding_mode="zeros", flip=0.5)).load(context)
    assert isinstance(data.train, ShuffledSplit)
    assert data.train.images.dtype == torch.uint8
    assert data.input_shape == (3, 16, 20)
    assert data.class_names == ("cat", "dog")
    labels = torch.cat([targets for _, targets in data.train_plain.batches()])
    assert labels.tolist() == [0] * 6 + [1] * 6
    inputs = torch.cat([inputs for inputs, _ in data.test.batches()])
    with Image.open(context.root / "pets/test/dog/0002.jpg") as image:
        expected = (np.asarray(image).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    assert np.abs(inputs[5].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize(("sizes", "limit"), [([(20, 16), (18, 20)], 2048), ([(20, 16)], 0)])
def test_other_images_are_streamed(context, sizes, limit):
    write_image_folder(context.root / "pets", IMAGES, sizes)
    data = ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), workers=0).load(context)
    assert isinstance(data.train, StreamSplit)
    assert data.input_shape == (3, 12, 12)
    inputs, targets = next(data.train.batches())
    assert inputs.shape == (4, 3, 12, 12)
    assert len(targets) == 4


@pytest.mark.parametrize("limit", [0, 100])
def test_limits_keep_equal_shares_of_each_class(context, limit):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    limits = {"limit_train": 5, "limit_test": 2, "validation": Validation(size=2, how="stratified")}
    data = ImageFolder(**SETTINGS, **limits, memory_limit=limit, crops=Crops(size=12, resize=14), workers=0).load(context)
    splits = (data.train_plain, data.validation, data.test)
    counts = [torch.bincount(torch.cat([targets for _, targets in split.batches()])).tolist() for split in splits]
    assert counts == [[3, 2], [1, 1], [1, 1]]


def test_validation_images_are_held_out_on_the_device_and_streamed(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    for limit in (0, 100):
        validation = Validation(size=4, how="stratified")
        data = ImageFolder(
            **SETTINGS, memory_limit=limit, validation=validation, crops=Crops(size=12, resize=14), workers=0
        ).load(context)
        assert (data.train.num_samples, data.validation.num_samples) == (8, 4)
        labels = torch.cat([targets for _, targets in data.validation.batches()])
        assert labels.tolist() == [0, 0, 1, 1]


def cached(context):
    return sorted((context.root / ".altprop").glob("*.npy"))


def test_images_are_decoded_once(context, monkeypatch):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    first = ImageFolder(**SETTINGS).load(context)
    (path,) = cached(context)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, "pets.lock"]
    monkeypatch.setattr(pixel_cache, "_decode", lambda *_: pytest.fail("decoded again"))
    again = ImageFolder(**SETTINGS).load(context)
    assert torch.equal(first.train_plain.images, again.train_plain.images)


@pytest.mark.parametrize("change", ["written", "removed", "added", "renamed"])
def test_a_changed_folder_is_decoded_again(context, change):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    ImageFolder(**SETTINGS).load(context)
    before = cached(context)
    path = context.root / "pets/train/cat/0003.jpg"
    if change == "written":
        Image.new("RGB", (20, 16), "red").save(path)
        os.utime(path, ns=(0, 0))
    elif change == "removed":
        path.unlink()
    elif change == "added":
        Image.new("RGB", (20, 16), "red").save(path.with_name("0100.jpg"))
    else:
        path.rename(path.with_name("0002a.jpg"))
    data = ImageFolder(**SETTINGS).load(context)
    assert data.train.num_samples == 12 + {"added": 1, "removed": -1}.get(change, 0)
    assert len(cached(context)) == 1
    assert cached(context) != before
    if change == "written":
        assert (data.train_plain.images[3, 0] > 1.9).all()


def test_a_truncated_cache_is_replaced(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    first = ImageFolder(**SETTINGS).load(context)
    (path,) = cached(context)
    path.write_bytes(path.read_bytes()[:500])
    again = ImageFolder(**SETTINGS).load(context)
    assert torch.equal(first.train_plain.images, again.train_plain.images)
    assert path.stat().st_size > 500


def test_a_read_only_folder_only_costs_time(context, monkeypatch, caplog):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pixel_cache, "_write", refuse)
    with caplog.at_level(logging.WARNING):
        data = ImageFolder(**SETTINGS).load(context)
    assert data.train.num_samples == 12
    assert "cannot be written (Permission denied)" in caplog.text


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_a_corrupt_image_is_named(context, limit, content):
    write_image_folder(context.root / "pets", IMAGES, [(40, 40)])
    path = context.root / "pets/train/dog/0004.jpg"
    path.write_bytes(path.read_bytes()[:400] if content == "truncated" else content)
    with pytest.raises(DataError) as caught:
        for _ in (
            ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), workers=0).load(context).train.batches()
        ):
            pass
    assert caught.value.path == path
    assert not cached(context)


def test_a_class_without_training_images_is_named(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    write_image_folder(context.root / "pets", {"test": 1}, [(20, 16)], ("cow",))
    with pytest.raises(DataError, match=r"test/cow is not a class"):
        ImageFolder(**SETTINGS).load(context)


def test_class_folders_without_images_are_refused_with_their_counts(context):
    pets = context.root / "pets"
    write_image_folder(pets, IMAGES, [(20, 16)])
    (pets / "train/cow").mkdir()
    for number in range(3):
        (pets / f"train/cow/{number}.gif").write_bytes(b"GIF89a")
    (pets / "train/eel/deeper").mkdir(parents=True)
    (pets / "train/__MACOSX").mkdir()
    (pets / "train/__MACOSX/._1.jpg").write_bytes(b"a resource fork")
    expected = (
        r"has 3 of 5 class folders without images: "
        r"__MACOSX \(1 hidden file\), cow \(3 \.gif files\), eel \(1 folder\); class folders with images"
    )
    with pytest.raises(DataError, match=expected):
        ImageFolder(**SETTINGS).load(context)
    for name in ("train/cow", "train/eel", "train/__MACOSX"):
        shutil.rmtree(pets / name)
    (pets / "test/cat").rename(pets / "cat")
    (pets / "test/cat").mkdir()
    with pytest.raises(DataError, match=r"test has 1 of 2 class folders without images: cat \(it is empty\)"):
        ImageFolder(**SETTINGS).load(context)


def test_files_that_are_left_out_are_counted(context, caplog):
    pets = context.root / "pets"
    write_image_folder(pets, IMAGES, [(20, 16)])
    (pets / "train/cat/deeper.jpg").mkdir()
    for name in ("train/cat/1.gif", "train/dog/2.gif", "train/labels.csv", "train/outside.jpg", "train/dog/.hidden"):
        (pets / name).touch()
    with caplog.at_level(logging.WARNING):
        ImageFolder(**SETTINGS).load(context)
    [message] = [record.getMessage() for record in caplog.records]
    assert "train: left out 1 .csv file, 2 .gif files, 1 .jpg file, 1 folder; images are <class>/<image>" in message


def test_a_single_class_is_refused(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)], ("cat",))
    with pytest.raises(DataError, match="has a single class, cat; at least two class folders"):
        ImageFolder(**SETTINGS).load(context)


@pytest.mark.parametrize("limit", [0, 100])
def test_a_broken_link_is_named(context, limit):
    write_image_folder(context.root / "pets", IMAGES, [(40, 40)])
    path = context.root / "pets/train/dog/0004.jpg"
    path.unlink()
    path.symlink_to("nowhere.jpg")
    data_set = ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), workers=0)
    with pytest.raises(DataError, match=r"0004\.jpg is a broken link to nowhere\.jpg") as caught:
        data_set.load(context)
    assert caught.value.path == path


def test_missing_folders_are_reported_in_one_line(tmp_path):
    root, node = {"paths": {"data": str(tmp_path)}}, {"folder": "pets", "label": "pets and more", "memory_limit": 100}
    (problem,) = ImageFolder.check(node, root)
    assert str(tmp_path / "pets") in str(problem)
    assert "train/<class>/<image>" in str(problem)
    write_image_folder(tmp_path / "pets", {"train": 1}, [(4, 4)])
    assert len(list(ImageFolder.check(node, root))) == 1
    write_image_folder(tmp_path / "pets", {"test": 1}, [(4, 4)])
    assert not list(ImageFolder.check(node, root))
    assert [problem.key for problem in ImageFolder.check({**node, "memory_limit": -1}, root)] == ["dataset.memory_limit"]


def test_messages_use_the_label(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    for label, expected in (("Pets (JPEG)", r"Pets \(JPEG\)"), (None, "pets")):
        with pytest.raises(ConfigError, match=f"12 training images of {expected}"):
            ImageFolder(**SETTINGS, label=label, validation=Validation(size=12)).load(context)


def test_gray_and_transparent_images_are_converted_to_color(context):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    Image.new("L", (20, 16), 100).save(context.root / "pets/train/cat/0001.jpg")
    Image.new("RGBA", (20, 16), (1, 2, 3, 4)).save(context.root / "pets/train/cat/0000.png")
    data = ImageFolder(**SETTINGS).load(dataclasses.replace(context, seed=1))
    assert data.train_plain.images.shape == (12, 3, 16, 20)


@pytest.mark.parametrize("limit", [0, 100])
def test_a_share_for_validation_that_is_no_image_is_refused(context, limit):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    images = ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), validation=Validation(size=1e-5))
    with pytest.raises(ConfigError, match=r"^dataset.validation.size: 1e-05; [^\n]* that is one image or more$"):
        images.load(context)


@pytest.mark.parametrize("limit", [0, 100])
def test_a_class_folder_whose_name_is_not_unicode_has_a_name_that_figures_take(context, limit):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    for split in ("train", "test"):
        folder = os.fsencode(context.root / "pets" / split)
        os.rename(folder + b"/cat", folder + b"/\xff\xfe")
    data = ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14)).load(context)
    assert "\\xff\\xfe" in data.class_names


@pytest.mark.parametrize("limit", [0, 100])
def test_a_split_that_lacks_a_class_says_so_once(context, limit, caplog):
    write_image_folder(context.root / "pets", IMAGES, [(20, 16)])
    validation = Validation(size=0.25, how="tail")
    ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), validation=validation).load(context)
    warnings = [record.message for record in caplog.records if "has no image of" in record.message]
    assert warnings == ["the validation split has no image of 1 of 2 classes: cat"]


UNUSABLE = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("not an image"), "cannot be decoded"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:300]), "cannot be decoded"),
    "a broken link": (lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")), "is a broken link to nowhere.jpg"),
    "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path.name)), "cannot be decoded (Too many levels"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is a pipe, not a file"),
    "a link to a device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "is a device, not a file"),
    "without pixels": (lambda path: path.write_bytes(b"P6 0 0 255\n"), "cannot be decoded"),
}


@pytest.mark.parametrize("limit", [0, 100])
def test_all_unusable_files_are_named_at_once(context, limit, caplog):
    pets = context.root / "pets"
    write_image_folder(pets, {"train": 10, "test": 10}, [(40, 40)])
    expected = {}
    for number, (spoil, text) in enumerate(UNUSABLE.values(), start=1):
        for split in ("train", "test"):
            path = pets / split / "cat" / f"{number:04}.jpg"
            spoil(path)
            expected[str(path)] = text
    (pets / "train/dog/deeper.png").mkdir()
    data_set = ImageFolder(**SETTINGS, memory_limit=limit, crops=Crops(size=12, resize=14), workers=2)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            data_set.load(context)
        assert not isinstance(caught.value, DataError)
        messages = [str(problem) for problem in caught.value.problems]
        assert len(messages) == len(expected)
        for message, (path, text) in zip(sorted(messages), sorted(expected.items())):
            assert message.startswith(f"dataset: {path} ")
            assert text in message
    for path in expected:
        os.unlink(path)
    if limit:
        assert data_set.load(context).train.num_samples == 2 * 10 - len(UNUSABLE)


def test_wrong_folders_and_files_are_named_together(context):
    pets = context.root / "pets"
    write_image_folder(pets, IMAGES, [(40, 40)])
    (pets / "train/dog/0001.jpg").write_bytes(b"")
    (pets / "train/empty").mkdir()
    (pets / "test/other").mkdir()
    with pytest.raises(ConfigError) as caught:
        ImageFolder(**SETTINGS).load(context)
    assert [message.rpartition("pets/")[2].partition(";")[0] for message in map(str, caught.value.problems)] == [
        "train has 1 of 3 class folders without images: empty (it is empty)",
        "test/other is not a class of the training images",
        "train/dog/0001.jpg is empty",
    ]


def test_streamed_images_are_checked_once(context, monkeypatch):
    pets = context.root / "pets"
    write_image_folder(pets, IMAGES, [(40, 40), (20, 30)])
    looked = []
    look = pixel_cache.facts_of
    monkeypatch.setattr(pixel_cache, "facts_of", lambda path: (looked.append(path), look(path))[1])

    def load(**changes):
        looked.clear()
        ImageFolder(**{**SETTINGS, "crops": Crops(size=12, resize=14), **changes}, workers=0).load(context)
        return len(looked)

    images = len([path for path in pets.rglob("*") if path.is_file()])
    assert [load(), load()] == [images, 0]
    (pets / "train/cat/0001.jpg").rename(pets / "train/cat/0009.jpg")
    assert [load(), load()] == [images, 0]
    with pytest.raises(ConfigError) as caught:
        load(crops=Crops(train="random_crop", size=24, resize=None))
    small = [path for path in pets.rglob("*.*g") if open_image(path).height < 40]
    assert len(caught.value.problems) == len(small)
    assert all("fewer than the crop's 24x24" in str(problem) for problem in caught.value.problems)


def test_folders_without_images_say_what_they_contain(tmp_path):
    root, node = {"paths": {"data": str(tmp_path)}}, {"folder": "pets", "memory_limit": 100}
    (tmp_path / "pets/train").mkdir(parents=True)
    (tmp_path / "pets/train/.DS_Store").touch()
    (tmp_path / "pets/train/.cache").mkdir()
    (problem,) = ImageFolder.check(node, root)
    assert "pets: 1 folder; train: 1 hidden file, 1 hidden folder; test: it does not exist" in str(problem)


@pytest.mark.parametrize("kind", ["rotated", "16 bits", "transparent", "float"])
def test_images_that_dali_would_show_otherwise_are_refused(context, kind):
    pets = context.root / "pets"
    write_image_folder(pets, IMAGES, [(40, 40)])
    path = pets / "train/cat/odd.tiff" if kind == "float" else pets / "train/cat/odd.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "rotated": lambda: Image.new("RGB", (40, 40)).save(path, exif=exif),
        "16 bits": lambda: Image.fromarray(np.zeros((40, 40), np.uint16)).save(path),
        "transparent": lambda: Image.new("RGBA", (40, 40)).save(path),
        "float": lambda: Image.fromarray(np.zeros((40, 40), np.float32)).save(path),
    }
    images[kind]()
    settings = {**SETTINGS, "memory_limit": 0, "crops": Crops(size=12, resize=14), "workers": 0}
    with pytest.raises(
        DataError, match=r"odd.*which dataset\.loader=dali does not convert.*try: dataset\.loader=torch"
    ) as caught:
        ImageFolder(**settings, loader="dali").load(context)
    assert caught.value.path == path
    ImageFolder(**settings).load(context)
    decoding = Decoding(list_images(pets / "train", ["cat", "dog"]), Crops(size=12, resize=14).view(train=False), 0, 0)
    [index] = [index for index in range(len(decoding.listing)) if decoding.listing.path(index) == path]
    with pytest.raises(DataError, match="does not convert"):
        dali._sample(decoding, index, 0)
