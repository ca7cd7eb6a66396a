"""An environment that contains altprop's wheel, a package that builds on it, and altprop's dependencies, but no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mypackage"
version = "1.0"

[project.entry-points."altprop.configs"]
mypackage = "mypackage.conf"

[tool.hatch.build.targets.wheel]
packages = ["mypackage"]
dev-mode-dirs = ["."]
""",
    "mypackage/__init__.py": "",
    "mypackage/networks.py": """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self, *, width: int, input_shape: tuple[int, int, int], num_classes: int) -> None:
        features = input_shape[0] * input_shape[1] * input_shape[2]
        super().__init__(nn.Flatten(), nn.Linear(features, width), nn.Tanh(), nn.Linear(width, num_classes))
""",
    "mypackage/conf/model/mine.yaml": "_target_: mypackage.networks.Net\n_partial_: true\nwidth: 8\n",
    "mypackage/conf/experiment/mypaper/row.yaml": """\
# @package _global_
# altprop train experiment=mypaper/row
defaults:
  - override /model: mine
  - _self_
name: mypaper/row
trainer: {duration: 2ep, figures: false}
paper: {reference: Me (2026), metric: test/accuracy, value: 80.0}
""",
    "mypackage/conf/sweep/mypaper/table.yaml": """\
# @package _global_
# altprop train -m sweep=mypaper/table
group: mypaper/table
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      experiment: mypaper/row
      seed: 0,1
""",
}
"""The package that builds on altprop."""

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    _call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=ROOT)
    for name, content in FILES.items():
        (folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "project" / name).write_text(content)
    place = folder / "environment"
    venv.create(place, symlinks=True)
    # The dependencies of this environment, without the .pth files in it, one of which adds this checkout.
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet", "--no-deps", "--no-index"]
    [wheel] = wheels.iterdir()
    _call(*pip, "--no-build-isolation", str(wheel), "--editable", str(folder / "project"), cwd=folder)
    return place


@pytest.fixture
def call(environment: Path, tmp_path: Path) -> Call:
    """Run a program of the environment in an empty folder."""

    def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return _call(str(environment / "bin" / program), *arguments, cwd=tmp_path, **variables)

    return run


def _call(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "ALTPROP_DATA", "ALTPROP_OUTPUTS", "HYDRA_FULL_ERROR")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**environment, **variables})
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done
