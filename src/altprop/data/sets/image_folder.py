"""Anyone's own images, in class folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, LoadContext
from altprop.data.checks import data_root, missing
from altprop.data.files.folder import class_folders, list_images
from altprop.data.loading.pixel_cache import decoded
from altprop.data.sets.in_memory import Images, RawData, place
from altprop.data.sets.streamed import Streamed
from altprop.problems import Problem

PARTS = ("train", "test")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Streamed):
    """Images in ``<paths.data>/<folder>/train/<class>`` and ``…/test/<class>``.

    Where all have one size and take no more than ``memory_limit`` MiB as bytes, they live on the device as they are, and
    ``augmentation`` says what happens to them; otherwise they are streamed, and ``crops`` does.
    """

    title: ClassVar[str] = "own images"
    channels: ClassVar[int | None] = 3

    folder: str
    label: str | None = None
    """How reports and messages call the set; null: as its folder."""
    memory_limit: int = 2048
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def described(self) -> str:
        """How messages call this set."""
        return self.label or self.folder

    def load(self, context: LoadContext) -> Data:
        """Decode the images, or take them from the cache, or list them."""
        folder = context.root / self.folder
        classes = class_folders(folder / "train")
        names = tuple(classes)
        train, test = (list_images(folder / part, classes) for part in PARTS)
        pixels = decoded((train, test), context.root, self.folder, self.memory_limit * MIB)
        if pixels is None:
            return self.stream(train, test, names, context)
        parts = [Images(part, listing.labels) for part, listing in zip(pixels, (train, test))]
        return place(self, RawData(parts[0], parts[1], names), self.augmentation, context)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range, missing folders."""
        yield from super().check(config, root)
        limit, name = config.get("memory_limit"), config.get("folder")
        if isinstance(limit, int) and limit < 0:
            yield Problem("dataset.memory_limit", str(limit), "a number of MiB, 0 to stream in any case")
        if not isinstance(name, str):
            return
        folder = data_root(root) / name
        if not all(class_folders(folder / part) for part in PARTS):
            title = config.get("label") or "an image folder"
            yield missing(
                title, folder, "train/<class>/<image> and test/<class>/<image>", "dataset.folder=<folder below paths.data>"
            )
