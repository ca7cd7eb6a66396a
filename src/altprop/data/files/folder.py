"""Images in class folders: ``<split>/<class>/<image>``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from altprop.data.errors import DataError
from altprop.data.files.pixels import to_rgb
from altprop.files import require_regular

log = logging.getLogger(__name__)

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
    """List the images in ``split``. The order of ``classes`` determines the labels. A warning counts the files that are left out.

    Raises DataError if there are no images, if a class folder has none, or if there is a folder that is not in ``classes``.
    """
    unknown = set(class_folders(split)) - set(classes)
    if unknown:
        description = "is not a class of the training images"
        raise DataError(split / min(unknown), description, f"one of {', '.join(classes[:10])}")
    names: list[bytes] = []
    labels: list[int] = []
    empty: dict[str, Counter[str]] = {}
    left_out = _other_entries(split, folders=False)
    for label, name in enumerate(classes):
        if not (split / name).is_dir():
            continue
        with os.scandir(split / name) as entries:
            images = sorted(entry.name for entry in entries if _is_image(entry, split / name))
        others = _other_entries(split / name, folders=True)
        left_out += others
        if not images:
            empty[name] = others
        names += [os.fsencode(f"{name}/{image}") for image in images]
        labels += [label] * len(images)
    allowed = f"class folders with images ({', '.join(EXTENSIONS)})"
    if not names:
        raise DataError(split, "contains no images", allowed)
    if empty:
        listed = [f"{name} ({_in_words(others)})" for name, others in empty.items()]
        more = f", … {len(listed) - 10} more" if len(listed) > 10 else ""
        description = f"has {len(empty)} of {len(classes)} class folders without images: {', '.join(listed[:10])}{more}"
        raise DataError(split, description, f"{allowed}; remove the others")
    if left_out:
        log.warning("%s: left out %s; images are <class>/<image> (%s)", split, _in_words(left_out), ", ".join(EXTENSIONS))
    return Listing(split, np.array(names), np.array(labels, dtype=np.int64))


def _is_image(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether the entry of ``folder`` has the name of an image. Raises DataError if it does, but is a broken link."""
    if entry.name.startswith(".") or not entry.name.lower().endswith(EXTENSIONS) or entry.is_dir():
        return False
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise DataError(folder / entry.name, f"is a broken link to {os.readlink(entry.path)}", "an image file")
    return True


def _other_entries(folder: Path, *, folders: bool) -> Counter[str]:
    """The number of entries of ``folder`` that are not images, by extension, and of folders in it; hidden ones do not count.

    Without ``folders``, images count, too, and folders do not.
    """
    counts: Counter[str] = Counter()
    if not folder.is_dir():
        return counts
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or (folders and _is_image(entry, folder)):
                continue
            if not entry.is_dir():
                counts[os.path.splitext(entry.name)[1] or "other"] += 1
            elif folders:
                counts["folder"] += 1
    return counts


def _in_words(counts: Counter[str]) -> str:
    """Counts such as ``12 .gif files, 1 folder``."""
    words = []
    for name, count in sorted(counts.items()):
        noun = name if name == "folder" else f"{name} file"
        words.append(f"{count} {noun}{'s' if count > 1 else ''}")
    return ", ".join(words) or "it is empty"


def open_image(path: Path) -> Image.Image:
    """Decode one image to 8-bit RGB. Raises DataError if the file is not an image, is truncated, or is not a regular file."""
    try:
        require_regular(path)
        with Image.open(path) as image:
            return to_rgb(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow raises all of them for broken files
        raise DataError(path, f"cannot be decoded ({type(error).__name__}: {error})", "a complete image file") from error
