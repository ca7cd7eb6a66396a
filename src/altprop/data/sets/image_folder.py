"""Your own images, in class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, LoadContext
from altprop.data.checks import data_root, missing_files
from altprop.data.files.folder import class_folders, contents, list_splits
from altprop.data.loading.decoding import num_workers
from altprop.data.loading.pixel_cache import check_once, decode_or_read
from altprop.data.sets.in_memory import Images, RawData, on_device
from altprop.data.sets.streamed import Streamed
from altprop.problems import Problem
from altprop.ranges import FilePath, NonNegativeInt, Text

SPLITS = ("train", "test")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Streamed):
    """Images in ``<paths.data>/<folder>/train/<class>`` and ``…/test/<class>``.

    Images of equal size that fit into ``memory_limit`` are kept on the device, where ``augmentation`` applies to them. All others
    are streamed, where ``crops`` applies.

    Args:
        folder: Folder below ``paths.data``.
        label: What reports and messages call the set; None for the name of the folder.
        memory_limit: MiB that images may take on the device, as bytes. 0 always streams.
        augmentation: Augmentation of images kept on the device.
    """

    title: ClassVar[str] = "own images"
    channels: ClassVar[int | None] = 3
    splits: ClassVar[tuple[str, str]] = SPLITS

    folder: FilePath
    label: Text | None = None
    memory_limit: NonNegativeInt = 2048
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def display_name(self) -> str:
        """What messages call this set."""
        return self.label or self.folder

    def load(self, context: LoadContext) -> Data:
        """Decode the images or read them from the cache. If they are streamed, check once that they can be decoded.

        Raises ConfigError that names every unusable file of both splits.
        """
        folder = context.root / self.folder
        classes = class_folders(folder / SPLITS[0])
        names = tuple(os.fsencode(name).decode(errors="backslashreplace") for name in classes)  # figures take no other bytes
        train, test = list_splits(folder, SPLITS, classes)
        pixels = decode_or_read((train, test), context.root, self.folder, self.memory_limit * MIB)
        if pixels is None:
            workers = num_workers(self.workers)
            check_once((train, test), context.root, self.folder, self.crops, workers, dali=self.loader == "dali")
            return self.stream(train, test, names, context)
        raw = RawData(Images(pixels[0], train.labels), Images(pixels[1], test.labels), names)
        return on_device(self, raw, self.augmentation, context)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for missing folders."""
        yield from super().check(config, root)
        limit, name = config.get("memory_limit"), config.get("folder")
        if isinstance(limit, int) and limit < 0:
            yield Problem("dataset.memory_limit", str(limit), "a number of MiB, 0 to always stream")
        if not isinstance(name, str):
            return
        folder = data_root(root) / name
        if not all(class_folders(folder / split) for split in SPLITS):
            title = config.get("label") or "an image folder"
            layout = "train/<class>/<image> and test/<class>/<image>"
            if folder.is_dir():
                layout += f"; {folder.name}: {contents(folder)}"
                layout += "".join(
                    f"; {split}: {contents(folder / split)}" for split in SPLITS if not class_folders(folder / split)
                )
            yield missing_files(title, folder, layout, "dataset.folder=<folder below paths.data>")
