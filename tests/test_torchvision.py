"""Importing torchvision with a torch that its compiled extension does and does not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest

REAL = "from altprop._torchvision import import_torchvision; tv = import_torchvision(); "
USE = "import torch; print(type(tv.models.resnet18()).__name__); from torchvision.transforms import v2; v2.RandomCrop(4)"
# Imitates an extension that fits, by declaring the operators it would register.
FITTING = (
    "import torch; load = torch.ops.load_library\n"
    "def fits(path):\n"
    "    for name in ('nms', 'qnms'):\n"
    "        torch.library.define('torchvision::' + name, '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
    "import altprop._torchvision\n"
    "torch.ops.load_library = fits\n"
    "altprop._torchvision._load_extension()\n"
    "torch.ops.load_library = load\n"
)


def extension_fits() -> bool:
    """Whether the installed extension fits the installed torch: its operators cannot be registered twice."""
    program = "import altprop._torchvision as own, torch; own._load_extension(); print(hasattr(torch.ops.torchvision, 'nms'))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "True"


@pytest.mark.parametrize("before", ["", FITTING], ids=["as installed", "operators already registered"])
def test_import(before):
    if before and extension_fits():
        pytest.skip("the extension has registered the operators itself")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + REAL + USE], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == "ResNet", result.stderr
