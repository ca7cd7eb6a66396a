"""``data.py action=check``: everything that is in a data set, and everything that is wrong with it."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from altprop.problems import ConfigError
from tests.commands.test_data import run_with
from tests.data.writers import write_image_folder, write_mnist

CROPS = {"_target_": "altprop.data.Crops", "train": "random_crop", "flip": 0.0, "size": 24, "resize": None}


def check(capsys, root, name="image_folder", **changes):
    """What the command prints, and the problems that it ends with."""
    changes = changes if name != "image_folder" else {"folder": "pets", **changes}
    problems = []
    try:
        run_with(root, name, changes, action="check", workers=2)
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    return capsys.readouterr().out.splitlines(), problems


def usable(capsys, root, title, name="image_folder", **changes):
    """What the command prints between the title and the last line if every image can be used."""
    [first, *lines, last], problems = check(capsys, root, name, **changes)
    assert (first, last, problems) == (f"{title} in {root}", "every image can be used", [])
    return lines


def test_a_folder_without_mistakes(tmp_path, capsys):
    write_image_folder(tmp_path / "pets", {"train": 3, "test": 2}, [(20, 16)])
    assert usable(capsys, tmp_path, "pets") == [
        "train: 6 images of 2 classes; cat 3, dog 3; 20x16 6; RGB 6",
        "test: 4 images of 2 classes; cat 2, dog 2; 20x16 4; RGB 4",
    ]


def test_duplicates_sizes_modes_and_missing_classes_are_named(tmp_path, capsys):
    pets = tmp_path / "pets"
    write_image_folder(pets, {"train": 2, "test": 2}, [(20, 16)])
    shutil.copy(pets / "train/cat/0001.jpg", pets / "train/dog/copy.jpg")
    shutil.copy(pets / "train/cat/0001.jpg", pets / "test/cat/copy.jpg")
    shutil.rmtree(pets / "test/dog")
    Image.fromarray(np.full((16, 20), 300, np.uint16)).save(pets / "train/dog/deep.png")
    Image.new("L", (30, 16)).save(pets / "train/dog/gray.png")
    assert usable(capsys, tmp_path, "pets", crops={**CROPS, "size": 16}) == [
        "train: 7 images of 2 classes; cat 2, dog 5; 20x16 6, 30x16 1; RGB 5, I;16 1, L 1",
        "test: 3 images of 1 class; cat 3; 20x16 3; RGB 3",
        "test has no usable image of 1 of 2 classes: dog",
        "the same image 3 times: train/cat/0001.jpg, train/dog/copy.jpg, test/cat/copy.jpg",
    ]


def test_every_unusable_file_and_folder_is_named(tmp_path, capsys):
    pets = tmp_path / "pets"
    write_image_folder(pets, {"train": 5, "test": 2}, [(40, 40)])
    (pets / "train/cat/0001.jpg").write_bytes(b"")
    (pets / "train/cat/0002.jpg").unlink()
    os.mkfifo(pets / "train/cat/0002.jpg")
    (pets / "train/dog/0003.jpg").write_bytes(b"not an image")
    (pets / "test/dog/0001.jpg").unlink()
    (pets / "test/dog/0001.jpg").symlink_to("nowhere.jpg")
    (pets / "train/empty/.hidden").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(pets / "test/cat/small.png")
    _, problems = check(capsys, tmp_path, crops=CROPS)
    found = sorted(problem.partition("pets/")[2].partition(";")[0] for problem in problems)
    assert [line for line in found if "cannot be decoded" not in line] == [
        "test/cat/small.png has 20x20 pixels, fewer than the crop's 24x24",
        "test/dog/0001.jpg is a broken link to nowhere.jpg",
        "train has 1 of 3 class folders without images: empty (1 hidden folder)",
        "train/cat/0001.jpg is empty",
    ]
    assert [line.split()[0] for line in found if "cannot be decoded" in line] == ["train/cat/0002.jpg", "train/dog/0003.jpg"]


@pytest.mark.parametrize("broken", ["train", "test"])
def test_a_split_without_images_is_one_line(tmp_path, capsys, broken):
    write_image_folder(tmp_path / "pets", {"train": 2, "test": 2}, [(20, 16)])
    shutil.rmtree(tmp_path / "pets" / broken)
    (tmp_path / "pets" / broken).mkdir()
    lines, [problem] = check(capsys, tmp_path)
    assert lines == []
    assert f"{broken}: it is empty" in problem


def test_sets_of_one_file_are_counted(tmp_path, capsys):
    write_mnist(tmp_path)
    assert usable(capsys, tmp_path, "MNIST", "mnist", limit_test=1) == [
        "train: 40 images of 10 classes; " + ", ".join(f"{digit} 4" for digit in range(10)) + "; 28x28 40; gray 40",
        "test: 1 images of 1 class; 0 1; 28x28 1; gray 1",
        "test has no usable image of 9 of 10 classes: 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ]
