"""``data.py`` through the real command line, the sheet, and the files of ``conf/dataset``."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from altprop.commands.data import run
from altprop.data.augmentation import Augmentation
from altprop.data.sets.shapes import Shapes
from altprop.data.sheet import draw_sheet
from altprop.problems import ConfigError
from tests.data.writers import write_image_folder, write_mnist

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf/dataset").glob("*.yaml"))


def run_with(root, dataset=None, dataset_changes=None, **keys):
    """What the command line does with the composed configuration, without starting a process."""
    node = (
        None
        if dataset is None
        else {**yaml.safe_load((ROOT / f"conf/dataset/{dataset}.yaml").read_text()), **(dataset_changes or {})}
    )
    paths = {"data": str(root), "outputs": str(root)}
    keys = {
        "seed": 0,
        "file": f"{root}/sheet.png",
        "archives": str(root),
        "resize": None,
        "workers": 1,
        "folder": "imagenet",
        **keys,
    }
    run(OmegaConf.create({"paths": paths, "dataset": node, **keys}))


def call(*arguments, folder=ROOT):
    return subprocess.run([sys.executable, ROOT / "data.py", *arguments], capture_output=True, text=True, cwd=folder, timeout=120)


def test_list_says_what_is_there_and_how_to_get_the_rest(tmp_path, capsys):
    write_mnist(tmp_path)
    run_with(tmp_path, action="list")
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:] if line[2] != " "}
    assert {path.stem for path in FILES} == set(lines)
    assert lines["mnist"][1] == lines["shapes"][1] == lines["mnist_sample"][1] == "there"
    assert " ".join(lines["cifar10"][2:]) == f"python data.py action=fetch dataset=cifar10 paths.data={tmp_path}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"action": "fech"}, "action: is 'fech'; one of list, fetch, sheet, unpack_imagenet; try: action=fetch"),
        ({"action": "sheet"}, "dataset: is not set; a choice of the group dataset; try: dataset=…"),
        ({"action": "fetch", "dataset": "shapes"}, "shapes is not downloaded"),
        ({"action": "sheet", "dataset": "svhn"}, "SVHN is not in"),
        ({"action": "fetch", "dataset": "svhn", "dataset_changes": {"image_size": 0}}, "dataset.image_size: 0"),
        ({"action": "unpack_imagenet", "resize": 0}, "resize: is 0; a whole number from 1 on, or null"),
        ({"action": "unpack_imagenet", "workers": "two"}, "workers: is 'two'"),
        ({"action": "unpack_imagenet"}, "ILSVRC2012_img_train.tar"),
    ],
)
def test_mistakes_are_one_line_each_and_nothing_is_written(tmp_path, given, expected):
    with pytest.raises(ConfigError) as caught:
        run_with(tmp_path, **given)
    (problem,) = caught.value.problems
    assert expected in str(problem)
    assert not list(tmp_path.iterdir())


def test_fetch_says_that_files_are_there(tmp_path, capsys):
    write_mnist(tmp_path)
    run_with(tmp_path, action="fetch", dataset="mnist")
    assert capsys.readouterr().out == f"MNIST: already there, below {tmp_path}\n"


def test_command_line(tmp_path):
    write_image_folder(tmp_path / "pets", {"train": 4, "test": 1}, [(20, 20)])
    paths = [f"paths.data={tmp_path}", f"paths.outputs={tmp_path}/out"]
    result = call("action=sheet", "dataset=image_folder", "dataset.folder=pets", *paths, folder=tmp_path)
    assert result.stdout.strip() == f"{tmp_path}/out/sheets/image_folder.png", result.stderr
    with Image.open(tmp_path / "out/sheets/image_folder.png") as sheet:
        assert sheet.height > 100
    result = call("action=sheet", "dataset=svhn", "dataset.batch_size=0", *paths, folder=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 2
    assert "Traceback" not in result.stderr


def test_sheet_shows_plain_images_left_and_augmented_ones_right(context, tmp_path):
    settings = {"batch_size": 50, "eval_batch_size": 50, "mean": [0.4], "std": [0.2], "train_size": 200, "test_size": 10}
    data_set = Shapes(**settings, augmentation=Augmentation(12, "zeros", 0.5))
    draw_sheet(data_set.load(context), data_set.mean, data_set.std, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    black = (pixels.sum(2) == 0)[4:68]
    assert black[:, 320:].mean() > 0.2  # the borders that padding brought in
    assert black[:, 110:310].mean() < 0.02
    first = Image.fromarray(data_set.read(tmp_path).train.pixels[0].transpose(1, 2, 0)).resize((64, 64), Image.Resampling.NEAREST)
    assert np.abs(pixels[4:68, 110:174] - np.asarray(first)).max() <= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_name_every_argument_with_its_default(path):
    """A key that a file lacks could only be given with a plus sign; a default that differs would make two truths."""
    node = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# ")

    def compare(node, needed_defaults):
        module, _, name = node.pop("_target_").rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
        parameters = inspect.signature(cls).parameters
        assert set(node) == set(parameters)
        for key, value in node.items():
            if isinstance(value, dict):
                compare(value, needed_defaults=False)
            elif needed_defaults and parameters[key].default is not inspect.Parameter.empty and key not in ("label",):
                assert value == parameters[key].default

    compare(node, needed_defaults=True)
