"""Unpacking small imitations of ImageNet's archives: layout, resizing, interruption, truncated files."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from altprop._torchvision import import_torchvision
from altprop.data.errors import DataError
from altprop.data.files import unpack
from altprop.data.files.unpack import DEVKIT, TRAIN, VAL, unpack_imagenet
from altprop.data.sets.imagenet import ImageNet
from altprop.problems import ConfigError, RunFailed
from tests.data.writers import smooth_image

CLASSES = ("n01440764", "n01443537", "n02840245")


def jpeg(seed):
    content = io.BytesIO()
    smooth_image(60 + seed, 50, seed=seed).save(content, "JPEG")
    return content.getvalue()


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def archive_of(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return content.getvalue()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    folder = tmp_path / "archives"
    folder.mkdir()
    inner = {
        f"{name}.tar": archive_of({f"{name}_{number}.JPEG": jpeg(10 * position + number) for number in range(3)})
        for position, name in enumerate(CLASSES)
    }
    (folder / TRAIN).write_bytes(archive_of(inner))
    (folder / VAL).write_bytes(archive_of({f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(number) for number in (3, 1, 2, 4)}))
    kit = tmp_path / "kit"
    kit.mkdir()
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    # One entry more than there are classes, because the kit also lists inner nodes of the hierarchy.
    rows = [(number + 1, name, f"word {number}", "", 0) for number, name in enumerate(CLASSES)] + [
        (4, "n00000000", "inner", "", 2)
    ]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=fields)[:, None]})
    (kit / "truth").write_text("2\n1\n3\n2\n")
    with tarfile.open(folder / DEVKIT, "w:gz") as tar:
        tar.add(kit / "meta.mat", "ILSVRC2012_devkit_t12/data/meta.mat")
        tar.add(kit / "truth", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt")
    import_torchvision()
    from torchvision.datasets import imagenet

    checksum = hashlib.md5((folder / DEVKIT).read_bytes()).hexdigest()
    monkeypatch.setitem(imagenet.ARCHIVE_META, "devkit", (DEVKIT, checksum))
    return folder


def images(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".bin")


EXPECTED = sorted(
    [f"train/{name}/{name}_{number}.JPEG" for name in CLASSES for number in range(3)]
    + [f"val/{CLASSES[label]}/ILSVRC2012_val_{number:08d}.JPEG" for number, label in ((1, 1), (2, 0), (3, 2), (4, 1))]
)


def test_layout_and_labels(archives, tmp_path):
    folder = tmp_path / "imagenet"
    assert unpack_imagenet(archives, folder, None, 2) == (9, 4)
    assert images(folder) == EXPECTED
    assert (folder / "train/n01443537/n01443537_2.JPEG").read_bytes() == jpeg(12)
    assert (folder / "val/n01443537/ILSVRC2012_val_00000001.JPEG").read_bytes() == jpeg(1)
    assert not list(ImageNet.check({"folder": "imagenet"}, {"paths": {"data": str(tmp_path)}}))


def test_resize(archives, tmp_path):
    unpack_imagenet(archives, tmp_path / "imagenet", 32, 1)
    assert images(tmp_path / "imagenet") == EXPECTED
    with Image.open(tmp_path / "imagenet/train/n01443537/n01443537_2.JPEG") as image:
        assert image.size == (int(32 * 72 / 50), 32)
        expected = Image.open(io.BytesIO(jpeg(12))).resize(image.size, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).mean() < 6


def test_an_interrupted_call_is_continued(archives, tmp_path, monkeypatch):
    folder = tmp_path / "imagenet"
    unpack_imagenet(archives, folder, None, 1)
    # The state after a kill: one class complete, one incomplete, one missing, and one validation image half written.
    (folder / "train").rename(folder / "train.partial")
    (folder / "val").rename(folder / "val.partial")
    finished = folder / "train.partial/n01440764/n01440764_0.JPEG"
    os.utime(finished, ns=(0, 0))
    shutil.rmtree(folder / "train.partial/n02840245")
    (folder / "train.partial/n01443537").rename(folder / "train.partial/.n01443537.partial")
    (folder / "train.partial/.n01443537.partial/half.JPEG").write_bytes(b"half")
    (folder / "val.partial/n01443537/.ILSVRC2012_val_00000004.JPEG.tmp").write_bytes(b"half")
    (folder / "val.partial/n01443537/ILSVRC2012_val_00000004.JPEG").unlink()
    # A partial folder is not accepted as the data set.
    assert list(ImageNet.check({"folder": "imagenet"}, {"paths": {"data": str(tmp_path)}}))
    assert unpack_imagenet(archives, folder, None, 1) == (9, 4)
    assert images(folder) == EXPECTED
    assert (folder / "train/n01440764/n01440764_0.JPEG").stat().st_mtime_ns == 0
    monkeypatch.setattr(unpack, "_unpack_images", lambda piece: pytest.fail("unpacked again"))
    assert unpack_imagenet(archives, folder, None, 1) == (9, 4)


def test_missing_archives_are_reported_in_one_line(archives, tmp_path):
    (archives / VAL).unlink()
    with pytest.raises(ConfigError, match=VAL) as caught:
        unpack_imagenet(archives, tmp_path / "imagenet", None, 1)
    assert not (tmp_path / "imagenet").exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_truncated_archives_are_named(archives, tmp_path, name, share):
    path = archives / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError) as caught:
        unpack_imagenet(archives, tmp_path / "imagenet", None, 1)
    assert caught.value.path == path


def test_a_corrupt_image_is_named_if_it_must_be_decoded(archives, tmp_path):
    content = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(number) for number in (1, 2, 3)}
    (archives / VAL).write_bytes(archive_of({**content, "ILSVRC2012_val_00000004.JPEG": b"no image"}))
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000004\.JPEG"):
        unpack_imagenet(archives, tmp_path / "imagenet", 32, 1)


def test_disk_space_is_checked_first(archives, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(RunFailed, match="are free"):
        unpack_imagenet(archives, tmp_path / "imagenet", None, 1)
    assert images(tmp_path / "imagenet") == []
