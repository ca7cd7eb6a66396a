"""Images in class folders: ``<split>/<class>/<image>``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from altprop.data.errors import DataError, raise_all
from altprop.data.files.pixels import conversion_of, to_rgb
from altprop.files import require_regular

log = logging.getLogger(__name__)
T = TypeVar("T")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever the file's name. Pillow reads more: for an EPS file, it would run Ghostscript."""
MAX_PIXELS = 2**26
"""Largest image. A file of a kilobyte can stand for gigabytes of pixels."""


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

    def paths(self) -> list[Path]:
        """Return the paths of all images."""
        return [self.path(index) for index in range(len(self))]

    def take(self, selection: slice | NDArray[np.int64]) -> Listing:
        """Return a listing of the selected images."""
        return Listing(self.folder, self.names[selection], self.labels[selection])


def class_folders(split: Path) -> list[str]:
    """Return the sorted names of the class folders in ``split``; an empty list if ``split`` does not exist."""
    if not split.is_dir():
        return []
    with os.scandir(split) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def list_splits(folder: Path, splits: Sequence[str], classes: list[str], *, decode: bool = True) -> list[Listing]:
    """List the images of every split in ``folder``.

    Raises DataError, or ConfigError with every problem, if the folders are not as expected. With ``decode``, files are then
    decoded, too, so that all mistakes are named at once.
    """
    errors = single_class(folder / splits[0], classes)
    listings = [list_images(folder / split, classes, errors) for split in splits]
    if errors and decode:
        errors += unusable_images(listings)
    raise_all(errors)
    return listings


def single_class(split: Path, classes: Sequence[str]) -> list[DataError]:
    """The error of training images in ``split`` that have a single class; empty for any other number of ``classes``."""
    if len(classes) != 1:
        return []
    return [DataError(split, f"has a single class, {classes[0]}", "at least two class folders")]


def list_images(split: Path, classes: list[str], errors: list[DataError] | None = None) -> Listing:
    """List the images in ``split``. The order of ``classes`` determines the labels. A warning counts the files that are left out.

    There is an error if there are no images, if a class folder has none, or if there is a folder that is not in ``classes``. It
    is added to ``errors``, or raised as DataError if that is None.
    """
    found: list[DataError] = []
    for other in sorted(set(class_folders(split)) - set(classes)):
        description = "is not a class of the training images"
        found.append(DataError(split / other, description, f"one of {', '.join(classes[:10])}"))
    names: list[bytes] = []
    labels: list[int] = []
    empty: dict[str, Counter[str]] = {}
    left_out = _other_entries(split, folders=False)
    for label, name in enumerate(classes):
        if not (split / name).is_dir():
            continue
        with os.scandir(split / name) as entries:
            images = sorted(entry.name for entry in entries if _is_image(entry))
        others = _other_entries(split / name, folders=True)
        left_out += others
        if not images:
            empty[name] = others + _hidden(split / name)
        names += [os.fsencode(f"{name}/{image}") for image in images]
        labels += [label] * len(images)
    allowed = f"class folders with images ({', '.join(EXTENSIONS)})"
    if not names:
        found.append(DataError(split, f"contains no images: {contents(split)}", allowed))
    elif empty:
        listed = [f"{name} ({_in_words(others)})" for name, others in empty.items()]
        more = f", … {len(listed) - 10} more" if len(listed) > 10 else ""
        description = f"has {len(empty)} of {len(classes)} class folders without images: {', '.join(listed[:10])}{more}"
        found.append(DataError(split, description, f"{allowed}; remove the others"))
    if errors is not None:
        errors += found
    else:
        raise_all(found)
    if left_out:
        log.warning("%s: left out %s; images are <class>/<image> (%s)", split, _in_words(left_out), ", ".join(EXTENSIONS))
    return Listing(split, np.array(names, dtype=np.bytes_), np.array(labels, dtype=np.int64))


def contents(folder: Path) -> str:
    """What ``folder`` contains, in words, such as ``2 .gif files, 1 hidden folder``."""
    if not folder.is_dir():
        return "it is not a folder" if os.path.lexists(folder) else "it does not exist"
    return _in_words(_other_entries(folder, folders=True) + _hidden(folder))


def _hidden(folder: Path) -> Counter[str]:
    """The number of hidden files and folders in ``folder``."""
    with os.scandir(folder) as entries:
        return Counter("hidden folder" if _is_folder(entry) else "hidden" for entry in entries if entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry of a folder is a folder, or a link to one. A link that leads nowhere is not."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether the entry of a folder has the name of an image and is not a folder; it may be a broken link."""
    return not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS) and not _is_folder(entry)


def _other_entries(folder: Path, *, folders: bool) -> Counter[str]:
    """The number of entries of ``folder`` that are not images, by extension, and of folders in it; hidden ones do not count.

    Without ``folders``, images count, too, and folders do not.
    """
    counts: Counter[str] = Counter()
    if not folder.is_dir():
        return counts
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or (folders and _is_image(entry)):
                continue
            if not _is_folder(entry):
                counts[os.path.splitext(entry.name)[1] or "other"] += 1
            elif folders:
                counts["folder"] += 1
    return counts


def _in_words(counts: Counter[str]) -> str:
    """Counts such as ``12 .gif files, 1 folder``."""
    words = []
    for name, count in sorted(counts.items()):
        noun = name if name.endswith("folder") else f"{name} file"
        words.append(f"{count} {noun}{'s' if count > 1 else ''}")
    return ", ".join(words) or "it is empty"


@dataclass(frozen=True)
class Facts:
    """What is in an image file.

    Args:
        size: Width and height in pixels.
        mode: Pillow's name for the channels, such as ``RGB``, ``L`` (gray) or ``I;16`` (16-bit gray).
        conversion: What is converted beyond that (:func:`altprop.data.files.pixels.conversion_of`).
    """

    size: tuple[int, int]
    mode: str
    conversion: str = ""


def open_image(path: Path) -> Image.Image:
    """Decode one image to 8-bit RGB. Raises DataError if the file is not an image, is truncated, or is not a regular file."""
    return _decoded(path)[0]


def facts_of(path: Path) -> Facts:
    """Decode one image and describe it. Raises DataError if it cannot be decoded."""
    image, mode, conversion = _decoded(path)
    return Facts(image.size, mode, conversion)


def _decoded(path: Path) -> tuple[Image.Image, str, str]:
    """The image as 8-bit RGB, its mode in the file, and what was converted."""
    try:
        require_regular(path)
        if path.stat().st_size == 0:
            raise DataError(path, "is empty", "a complete image file")
        # From the name of a file, Pillow 13 maps it into memory, which mixes up the rows of gray TIFFs that are rotated.
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            if not 0 < width * height <= MAX_PIXELS:
                raise ValueError(f"it has {width}x{height} pixels, but 1 to {MAX_PIXELS:,} can be decoded")
            conversion = conversion_of(image)  # first, because loading a TIFF rotates it
            return to_rgb(image), image.mode, conversion
    except (DataError, MemoryError):
        raise
    except Exception as error:  # broken files make Pillow raise nearly anything
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise DataError(path, f"is a broken link to {os.readlink(path)}", "an image file") from error
        raise DataError(path, f"cannot be decoded ({_reason(error)})", "a complete image file") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it cannot be read as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    if isinstance(error, OSError):
        return error.strerror or " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def look_at_images(
    paths: Sequence[Path], look: Callable[[Path], T], *, workers: int = 1, title: str = "decoding images"
) -> list[T | DataError]:
    """What ``look`` returns for each of ``paths``, or the DataError that it raises, in ``workers`` threads."""

    def try_to_look(path: Path) -> T | DataError:
        try:
            return look(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(with_progress(pool.map(try_to_look, paths), title, len(paths)))


def with_progress(items: Iterable[T], title: str, total: int) -> Iterable[T]:
    """Yield the ``total`` ``items`` and show a bar on the terminal, if there is one, that disappears at the end."""
    console = Console(stderr=True)
    return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)


def unconvertible(path: Path, facts: Facts) -> DataError | None:
    """The error of an image that NVIDIA DALI would show otherwise than altprop; None if it shows the same."""
    if not facts.conversion:
        return None
    description = f"{facts.conversion}, which dataset.loader=dali does not convert"
    return DataError(path, description, "8 bits, without transparency or rotation", "dataset.loader=torch")


def unusable_images(listings: Sequence[Listing], workers: int = 1) -> list[DataError]:
    """The errors of all images that cannot be decoded."""
    paths = [path for listing in listings for path in listing.paths()]
    return [result for result in look_at_images(paths, facts_of, workers=workers) if isinstance(result, DataError)]
