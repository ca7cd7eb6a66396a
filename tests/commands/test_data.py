"""The command ``data.py`` and the files of ``conf/dataset``."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from altprop.commands.data import run
from altprop.problems import ConfigError
from tests.data.writers import write_image_folder, write_mnist

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "conf/dataset").glob("*.yaml") if path.stem != "other")  # other names no class


def run_with(root, dataset=None, dataset_changes=None, **keys):
    """Run the command with a composed configuration, without starting a process."""
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


def test_list_shows_what_is_available_and_how_to_get_the_rest(tmp_path, capsys):
    write_mnist(tmp_path)
    run_with(tmp_path, action="list")
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:] if line[2] != " "}
    assert {path.stem for path in FILES} == set(lines)
    assert lines["mnist"][1] == lines["shapes"][1] == lines["mnist_sample"][1] == "available"
    assert " ".join(lines["cifar10"][2:]) == f"python data.py action=fetch dataset=cifar10 paths.data={tmp_path}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "fech"}, "action: is 'fech'; one of list, fetch, sheet, check, unpack_imagenet; try: action=fetch"),
        ({"action": "sheet"}, "dataset: is not set; a choice of the group dataset; try: dataset=…"),
        ({"action": "fetch", "dataset": "shapes"}, "shapes is not available for download"),
        ({"action": "sheet", "dataset": "svhn"}, "SVHN is not in"),
        ({"action": "fetch", "dataset": "svhn", "dataset_changes": {"image_size": 0}}, "dataset.image_size: 0"),
        ({"action": "unpack_imagenet", "resize": 0}, "resize: is 0; an integer, 1 or more, or null"),
        ({"action": "unpack_imagenet", "workers": "two"}, "workers: is 'two'"),
        ({"action": "unpack_imagenet"}, "ILSVRC2012_img_train.tar"),
    ],
)
def test_mistakes_are_reported_in_one_line_each_and_nothing_is_written(tmp_path, settings, message):
    with pytest.raises(ConfigError) as caught:
        run_with(tmp_path, **settings)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert not list(tmp_path.iterdir())


def test_fetch_reports_existing_files(tmp_path, capsys):
    write_mnist(tmp_path)
    run_with(tmp_path, action="fetch", dataset="mnist")
    assert capsys.readouterr().out == f"MNIST: already in {tmp_path}\n"


def test_command_line(tmp_path):
    write_image_folder(tmp_path / "pets", {"train": 4, "test": 1}, [(20, 20)])
    paths = [f"paths.data={tmp_path}", f"paths.outputs={tmp_path}/out"]
    result = call("action=sheet", "dataset=image_folder", "dataset.folder=pets", *paths, folder=tmp_path)
    assert result.stdout.strip() == f"{tmp_path}/out/sheets/image_folder.png", result.stderr
    with Image.open(tmp_path / "out/sheets/image_folder.png") as sheet:
        assert sheet.height > 100
    result = call("action=sheet", "dataset=svhn", "dataset.batch_size=0", *paths, folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "dataset.batch_size: 0 does not fit; it must be a whole number of at least 1; try: dataset.batch_size=1"
    ]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_list_every_argument_with_its_default(path):
    """A missing key could only be set with a plus sign, and two different defaults would contradict each other."""
    node = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# ")

    def compare(node, check_defaults):
        module, _, name = node.pop("_target_").rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
        parameters = inspect.signature(cls).parameters
        assert set(node) == set(parameters)
        for key, value in node.items():
            if isinstance(value, dict):
                compare(value, check_defaults=False)
            elif check_defaults and parameters[key].default is not inspect.Parameter.empty and key not in ("label",):
                assert value == parameters[key].default

    compare(node, check_defaults=True)
