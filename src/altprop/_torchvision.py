"""Import of torchvision, even if its compiled extension was built for a different torch.

The extension of a CUDA build of torchvision cannot be loaded with a CPU build of torch, and ``import torchvision`` then fails at
an operator that altprop does not use. Declaring the two operators that the import looks up is enough for torchvision's models,
transforms and data sets, none of which call compiled code.
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
    """Import and return ``torchvision``. Call this before any ``from torchvision import …``.

    Raises ModuleNotFoundError if torchvision is not installed.
    """
    _load_extension()
    if not hasattr(torch.ops.torchvision, "nms"):
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def _load_extension() -> None:
    """Load torchvision's compiled operators if this torch can. The import loads them again, which is harmless."""
    spec = importlib.util.find_spec("torchvision")
    for folder in spec.submodule_search_locations or () if spec else ():
        for library in (path for suffix in _SUFFIXES for path in Path(folder).glob(f"_C*.{suffix}")):
            with contextlib.suppress(ImportError, OSError):
                torch.ops.load_library(str(library))
