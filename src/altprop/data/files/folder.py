"""Images in class folders: ``<split>/<class>/<image>``."""

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
    """The image files of one split, sorted by class and then by name.

    ``names`` ``[n]`` are paths below ``folder`` as bytes in one block of memory; a list of a million strings would be copied
    into every worker process piece by piece.
    """

    folder: Path
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the path of image number ``index``."""
        return self.folder / os.fsdecode(self.names[index])

    def take(self, selection: slice | NDArray[np.int64]) -> Listing:
        """Return a listing of the selected images."""
        return Listing(self.folder, self.names[selection], self.labels[selection])


def class_folders(split: Path) -> list[str]:
    """Return the sorted names of the class folders in ``split``; an empty list if ``split`` does not exist."""
    if not split.is_dir():
        return []
    with os.scandir(split) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_images(split: Path, classes: list[str]) -> Listing:
    """List the images in ``split``. The order of ``classes`` determines the labels.

    Raises DataError if there are no images, or if there is a folder that is not in ``classes``.
    """
    unknown = set(class_folders(split)) - set(classes)
    if unknown:
        description = "is not a class of the training images"
        raise DataError(split / min(unknown), description, f"one of {', '.join(classes[:10])}")
    names: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (split / name).is_dir():
            continue
        with os.scandir(split / name) as entries:
            images = sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS))
        names += [os.fsencode(f"{name}/{image}") for image in images]
        labels += [label] * len(images)
    if not names:
        raise DataError(split, "contains no images", f"class folders with images ({', '.join(EXTENSIONS)})")
    return Listing(split, np.array(names), np.array(labels, dtype=np.int64))


def open_image(path: Path) -> Image.Image:
    """Decode one image to RGB. Raises DataError if the file is not an image or is truncated."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow raises all of them for broken files
        raise DataError(path, f"cannot be decoded ({type(error).__name__}: {error})", "a complete image file") from error
