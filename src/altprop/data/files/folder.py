"""Images in class folders: ``<part>/<class>/<image>``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from altprop.data.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The images of one part, by class and then by name, both sorted.

    ``names`` ``[n]`` are paths below ``folder`` as bytes: one block of memory, where a list of a million strings would be copied
    into every worker bit by bit.
    """

    folder: Path
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Where image number ``index`` lies."""
        return self.folder / os.fsdecode(self.names[index])

    def take(self, part: slice | NDArray[np.int64]) -> Listing:
        """Some of the images."""
        return Listing(self.folder, self.names[part], self.labels[part])


def class_folders(part: Path) -> list[str]:
    """Names of the class folders of one part, sorted; none where the folder is not there."""
    if not part.is_dir():
        return []
    with os.scandir(part) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_images(part: Path, classes: list[str]) -> Listing:
    """The images of one part; its class folders must be among ``classes``, whose order gives the labels.

    :raises DataError: where there is no image, or a folder of another class.
    """
    unknown = set(class_folders(part)) - set(classes)
    if unknown:
        raise DataError(part / min(unknown), "is no class of the training images", f"one of {', '.join(classes[:10])}")
    names: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (part / name).is_dir():
            continue
        with os.scandir(part / name) as entries:
            images = sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS))
        names += [os.fsencode(f"{name}/{image}") for image in images]
        labels += [label] * len(images)
    if not names:
        raise DataError(part, "holds no images", f"class folders with images ({', '.join(EXTENSIONS)})")
    return Listing(part, np.array(names), np.array(labels, dtype=np.int64))


def open_image(path: Path) -> Image.Image:
    """One image, decoded, in three colors.

    :raises DataError: where the file is no image or is torn.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow raises all of them for broken files
        raise DataError(path, f"cannot be decoded ({type(error).__name__}: {error})", "a whole image file") from error
