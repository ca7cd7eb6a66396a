"""Images of one size, decoded once and kept as one file of bytes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image
from rich.console import Console
from rich.progress import track

from altprop.data.files.folder import Listing, open_image
from altprop.data.sets.in_memory import Pixels

CACHE = ".altprop"
"""Folder below ``paths.data``."""
log = logging.getLogger(__name__)


def decoded(listings: Sequence[Listing], root: Path, name: str, most_bytes: int) -> list[Pixels] | None:
    """The pixels ``[n, 3, height, width]`` of each listing, or None where they are not all of one size or take more bytes.

    They are kept in ``<root>/.altprop/<name>-<digest>.npy``, where the digest changes with every file that is added, removed,
    renamed or written to. Where that folder cannot be written, images are decoded anew each time.

    :raises DataError: where an image cannot be decoded.
    """
    width, height = _size(listings[0].path(0))
    count = sum(map(len, listings))
    if count * 3 * width * height > most_bytes:
        return None
    folder, stem = root / CACHE, name.replace(os.sep, "-")
    path, shape = folder / f"{stem}-{_digest(listings)}.npy", (count, 3, height, width)
    pixels = _read(path, shape)
    if pixels is None:
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / f"{stem}.lock"))
                pixels = _read(path, shape)  # another process may have written it meanwhile
            except OSError as error:
                log.warning("%s cannot be locked (%s)", folder, error.strerror)
            if pixels is None:
                pixels = _decode(listings, width, height)
                if pixels is None:
                    return None
                _keep(path, pixels)
    ends = np.cumsum([len(listing) for listing in listings])
    return np.split(pixels, ends[:-1])


def _size(path: Path) -> tuple[int, int]:
    width, height = open_image(path).size
    return width, height


def _digest(listings: Sequence[Listing]) -> str:
    """A digest of the names, sizes and times of all files."""
    digest = hashlib.sha256()
    for listing in listings:
        digest.update(str(listing.folder.name).encode())
        for index, name in enumerate(listing.names):
            status = listing.path(index).stat()
            digest.update(b"%s/%d/%d;" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def _read(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The cached array; None where there is none, or another than expected."""
    try:
        pixels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _keep(path: Path, pixels: Pixels) -> None:
    """Write the cache, or say that images will be decoded anew at every start."""
    try:
        _write(path, pixels)
    except OSError as error:
        log.warning("%s cannot be written (%s): images are decoded anew at every start", path, error.strerror)


def _write(path: Path, pixels: Pixels) -> None:
    """Complete or not at all; what was kept of the same images before is removed."""
    name = path.name.rpartition("-")[0]
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, pixels)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in path.parent.glob(f"{name}-*.npy"):
        if old != path and old.name.rpartition("-")[0] == name:
            old.unlink(missing_ok=True)


def _decode(listings: Sequence[Listing], width: int, height: int) -> Pixels | None:
    """All images, or None as soon as one has another size."""
    paths = [listing.path(index) for listing in listings for index in range(len(listing))]
    pixels = np.empty((len(paths), 3, height, width), dtype=np.uint8)
    console = Console(stderr=True)
    shown = track(
        enumerate(paths), "decoding images", len(paths), console=console, transient=True, disable=not console.is_terminal
    )
    for row, path in shown:
        image: Image.Image = open_image(path)
        if image.size != (width, height):
            return None
        pixels[row] = np.asarray(image).transpose(2, 0, 1)
    return pixels
