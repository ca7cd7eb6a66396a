"""torchvision, importable also beside a torch that its compiled extension was not built for.

The extension of a CUDA build of torchvision cannot be loaded beside a CPU build of torch, and ``import torchvision`` then stops
at an operator that nothing here uses. Declaring the two operators that the import looks up is enough for its models, transforms
and data sets, none of which call compiled code.
"""

from __future__ import annotations

import contextlib
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
    _load_extension()
    if not hasattr(torch.ops.torchvision, "nms"):
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def _load_extension() -> None:
    """Load torchvision's compiled operators where this torch can; the import does so again, which does no harm."""
    found = importlib.util.find_spec("torchvision")
    for folder in found.submodule_search_locations or () if found else ():
        for library in (path for suffix in _SUFFIXES for path in Path(folder).glob(f"_C*.{suffix}")):
            with contextlib.suppress(ImportError, OSError):
                torch.ops.load_library(str(library))
