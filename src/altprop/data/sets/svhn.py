"""SVHN, digits cropped from photographs of house numbers, read from its MATLAB files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from altprop.data.base import Pixels
from altprop.data.checks import check_validation_size, data_root, fetch_command, missing_files
from altprop.data.errors import DataError
from altprop.data.files.formats import read_matlab
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.problems import Problem
from altprop.ranges import ImageSize

NUM_TRAIN, NUM_EXTRA = 73_257, 531_131


@dataclass(frozen=True, kw_only=True)
class SVHN(InMemory):
    """73,257 training and 26,032 test images of digits, 32x32, color.

    Args:
        extra: Whether to append the 531,131 easier extra images to the training images.
        image_size: Width and height that images are resized to when they are loaded (bilinear).
    """

    title: ClassVar[str] = "SVHN"
    name: ClassVar[str] = "svhn"
    channels: ClassVar[int | None] = 3

    extra: bool = False
    image_size: ImageSize = 32

    def read(self, root: Path) -> RawData:
        """Read both splits from ``<root>/svhn``."""
        test, *train = (self._read_file(root / "svhn" / name) for name in self.files(self.extra))
        pixels, labels = np.concatenate([file.pixels for file in train]), np.concatenate([file.labels for file in train])
        return RawData(Images(pixels, labels), test, tuple("0123456789"))

    @staticmethod
    def files(extra: bool) -> list[str]:
        """Return the names of the files, test images first."""
        return [f"{split}_32x32.mat" for split in ("test", "train", *(["extra"] if extra else []))]

    def _read_file(self, path: Path) -> Images:
        content = read_matlab(path)
        pixels, labels = content.get("X"), np.asarray(content.get("y", ())).ravel().astype(np.int64)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
            raise DataError(path, "does not hold the expected data", "X [32, 32, 3, n] uint8 and n labels y")
        # In the files, 10 is the label of the digit zero.
        return Images(resize(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), self.image_size), labels % 10)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for missing files."""
        yield from super().check(config, root)
        size, extra = config.get("image_size"), config.get("extra") is True
        if isinstance(size, int) and size < 1:
            yield Problem("dataset.image_size", str(size), "a width and height in pixels, 1 or more")
        yield from check_validation_size(config, NUM_TRAIN + NUM_EXTRA * extra, cls.title)
        folder = data_root(root) / "svhn"
        if not all((folder / name).is_file() for name in cls.files(extra)):
            command = fetch_command(cls.name, data_root(root)) + (" dataset.extra=true" if extra else "")
            yield missing_files(cls.title, folder, ", ".join(cls.files(extra)), command)


def resize(pixels: Pixels, size: int) -> Pixels:
    """Resize images ``[n, channels, height, width]`` to ``size`` x ``size`` pixels, like Pillow's bilinear filter."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = np.empty((*pixels.shape[:2], size, size), dtype=np.uint8)
    for start in range(0, len(pixels), 4096):
        chunk = torch.from_numpy(pixels[start : start + 4096])
        resized[start : start + 4096] = functional.interpolate(chunk, (size, size), mode="bilinear", antialias=True).numpy()
    return resized
