"""ImageNet (ILSVRC 2012), streamed from class folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from altprop.data.base import Data, LoadContext
from altprop.data.checks import data_root, missing_files
from altprop.data.files.folder import class_folders, list_splits
from altprop.data.sets.streamed import Streamed
from altprop.problems import Problem
from altprop.program import command
from altprop.ranges import FilePath

SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class ImageNet(Streamed):
    """1,281,167 training and 50,000 official validation images of 1,000 classes. The latter serve as the test split.

    Args:
        folder: Folder below ``paths.data`` with ``train/<class>`` and ``val/<class>``; for instance that of a resized copy.
    """

    title: ClassVar[str] = "ImageNet"
    channels: ClassVar[int | None] = 3
    num_train: ClassVar[int | None] = 1_281_167
    splits: ClassVar[tuple[str, str]] = SPLITS

    folder: FilePath = "imagenet"

    def load(self, context: LoadContext) -> Data:
        """List the files of both splits; images are decoded as they are needed."""
        folder = context.root / self.folder
        classes = class_folders(folder / SPLITS[0])
        train, test = list_splits(folder, SPLITS, classes, decode=False)
        return self.stream(train, test, tuple(classes), context)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for missing folders."""
        yield from super().check(config, root)
        folder = data_root(root) / str(config.get("folder", "imagenet"))
        if not all(class_folders(folder / split) for split in SPLITS):
            unpack = f"{command('data')} action=unpack_imagenet paths.data={data_root(root)}"
            yield missing_files(cls.title, folder, "train/<class>/*.JPEG and val/<class>/*.JPEG", unpack)
