"""``examples/own_package`` next to altprop's wheel, outside of the checkout: its own suite, its choices, its sweep."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_package"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example; its folder ``installed`` holds the installed package."""
    folder = tmp_path_factory.mktemp("example") / "own_package"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "installed"), str(folder)], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_suite_passes(project: Path, call) -> None:
    printed = call("python", "-m", "pytest", "-q", str(project / "tests"), PYTHONPATH=str(project / "installed")).stdout
    assert " passed" in printed


def test_its_choices_are_used_like_those_of_altprop(project: Path, call) -> None:
    own = {"PYTHONPATH": str(project / "installed")}
    short = ["trainer.duration=2st", "trainer.figures=false"]
    assert "weight_perturbation" in call("altprop", "train", "--help", **own).stdout
    ternary = ["algorithm/weights=ternary", "dataset=gratings", "model=pooled_mlp", "metrics=margin"]
    assert "test margin" in call("altprop", "train", *ternary, *short, **own).stdout
    call("altprop", "train", "-m", "sweep=own/directions", "algorithm.directions=1,2", "seed=0", *short, **own)
    assert "own/gratings" in call("altprop", "report", **own).stdout
