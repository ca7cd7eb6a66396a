"""MNIST and Fashion-MNIST, read from IDX files in torchvision's layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from altprop.data.checks import data_root, fetch_command, missing_files
from altprop.data.errors import DataError
from altprop.data.files.formats import read_idx
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.problems import Problem

PREFIXES = ("train", "t10k")


@dataclass(frozen=True, kw_only=True)
class MNIST(InMemory):
    """60,000 training and 10,000 test images of handwritten digits, 28x28, gray."""

    title: ClassVar[str] = "MNIST"
    name: ClassVar[str] = "mnist"
    folder: ClassVar[str] = "MNIST"
    channels: ClassVar[int | None] = 1
    num_train: ClassVar[int | None] = 60_000
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def read(self, root: Path) -> RawData:
        """Read both splits from ``<root>/<folder>/raw``."""
        raw = root / self.folder / "raw"
        train, test = (self._read_split(raw, prefix) for prefix in PREFIXES)
        return RawData(train, test, self.class_names)

    def _read_split(self, raw: Path, prefix: str) -> Images:
        pixels = read_idx(raw / f"{prefix}-images-idx3-ubyte", 3)
        labels_file = raw / f"{prefix}-labels-idx1-ubyte"
        labels = read_idx(labels_file, 1)
        if len(labels) != len(pixels) or (len(labels) and labels.max() >= len(self.class_names)):
            allowed = f"{len(pixels)} labels from 0 to {len(self.class_names) - 1}"
            raise DataError(labels_file, f"has {len(labels)} labels up to {labels.max(initial=0)}", allowed)
        return Images(pixels[:, None], labels.astype(np.int64))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for missing files."""
        yield from super().check(config, root)
        raw = data_root(root) / cls.folder / "raw"
        names = [f"{prefix}-{kind}" for prefix in PREFIXES for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        if not all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in names):
            yield missing_files(cls.title, raw, ", ".join(names), fetch_command(cls.name, data_root(root)))


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothes, 28x28, gray, in the format of MNIST."""

    title: ClassVar[str] = "Fashion-MNIST"
    name: ClassVar[str] = "fashion_mnist"
    folder: ClassVar[str] = "FashionMNIST"
    class_names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
