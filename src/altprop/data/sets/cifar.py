"""CIFAR-10 and CIFAR-100, read from the files of their Python version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from altprop.data.checks import data_root, fetch_command, missing_files
from altprop.data.errors import DataError
from altprop.data.files.formats import read_pickle
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.problems import Problem

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class CIFAR10(InMemory):
    """50,000 training and 10,000 test photographs of ten classes, 32x32, color."""

    title: ClassVar[str] = "CIFAR-10"
    name: ClassVar[str] = "cifar10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    channels: ClassVar[int | None] = 3
    num_train: ClassVar[int | None] = 50_000
    num_classes: ClassVar[int] = 10
    train_files: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files: ClassVar[tuple[str, ...]] = ("test_batch",)
    names_file: ClassVar[str] = "batches.meta"
    labels_key: ClassVar[str] = "labels"
    names_key: ClassVar[str] = "label_names"

    def read(self, root: Path) -> RawData:
        """Read both splits and the class names from ``<root>/<folder>``."""
        folder = root / self.folder
        train, test = (self._read_split([folder / name for name in names]) for names in (self.train_files, self.test_files))
        names = read_pickle(folder / self.names_file).get(self.names_key)
        if not isinstance(names, list) or len(names) != self.num_classes:
            raise DataError(
                folder / self.names_file,
                "does not hold the expected class names",
                f"a list {self.names_key} of {self.num_classes}",
            )
        return RawData(train, test, tuple(map(str, names)))

    def _read_split(self, paths: list[Path]) -> Images:
        files = [self._read_file(path) for path in paths]
        return Images(np.concatenate([file.pixels for file in files]), np.concatenate([file.labels for file in files]))

    def _read_file(self, path: Path) -> Images:
        content = read_pickle(path)
        pixels, labels = content.get("data"), np.asarray(content.get(self.labels_key, ()))
        labels_fit = len(labels) > 0 and labels.min() >= 0 and labels.max() < self.num_classes
        if not isinstance(pixels, np.ndarray) or pixels.shape != (len(labels), PIXELS) or not labels_fit:
            raise DataError(
                path, "does not hold the expected data", f"data [n, {PIXELS}] and n {self.labels_key} below {self.num_classes}"
            )
        return Images(pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for missing files."""
        yield from super().check(config, root)
        folder = data_root(root) / cls.folder
        files = (*cls.train_files, *cls.test_files, cls.names_file)
        if not all((folder / name).is_file() for name in files):
            yield missing_files(cls.title, folder, ", ".join(files), fetch_command(cls.name, data_root(root)))


@dataclass(frozen=True, kw_only=True)
class CIFAR100(CIFAR10):
    """50,000 training and 10,000 test photographs of 100 classes, 32x32, color."""

    title: ClassVar[str] = "CIFAR-100"
    name: ClassVar[str] = "cifar100"
    folder: ClassVar[str] = "cifar-100-python"
    num_classes: ClassVar[int] = 100
    train_files: ClassVar[tuple[str, ...]] = ("train",)
    test_files: ClassVar[tuple[str, ...]] = ("test",)
    names_file: ClassVar[str] = "meta"
    labels_key: ClassVar[str] = "fine_labels"
    names_key: ClassVar[str] = "fine_label_names"
