"""torchvision, importable also beside a torch that its compiled extension was not built for.

The extension of a CUDA build of torchvision cannot be loaded beside a CPU build of torch, and ``import torchvision`` then stops
at an operator that nothing here uses. Declaring the two operators that the import looks up is enough for its models, transforms
and data sets, none of which call compiled code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_SUFFIXES = ("so", "pyd")


@functools.cache
def import_torchvision() -> ModuleType:
    """The package ``torchvision``; call it before the first ``from torchvision import …`` of a function.

    :raises ModuleNotFoundError: where torchvision is not installed.
    """
    if not _extension_loads():
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def _extension_loads() -> bool:
    """Whether torchvision's compiled operators come up with this torch (loading them twice does no harm)."""
    found = importlib.util.find_spec("torchvision")
    for folder in found.submodule_search_locations or () if found else ():
        for library in (path for suffix in _SUFFIXES for path in Path(folder).glob(f"_C*.{suffix}")):
            try:
                torch.ops.load_library(str(library))
            except (ImportError, OSError):
                return False
            return True
    return False
