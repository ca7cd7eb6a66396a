"""An environment with altprop's wheel, the package of docs/own_package.md and altprop's dependencies, but no checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "own_package.md"
FILES = re.findall(r"\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
"""The files of the package on the page, by path."""

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    _call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=ROOT)
    for name, content in [*FILES, ("mypackage/__init__.py", "")]:
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
