"""A cache of decoded images of equal size, in one file of bytes, and the check of images that are streamed instead."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from altprop.data.base import Pixels
from altprop.data.errors import DataError, raise_all
from altprop.data.files.folder import Listing, facts_of, look_at_images, open_image, unusable_images, with_progress
from altprop.data.loading.recipes import Crops, streaming_error

CACHE = ".altprop"
"""Folder below ``paths.data``."""
CHECKED = ".checked"
"""Ending of the empty files that say that images were checked."""
DECODING = b"3"
"""Changes when images are decoded to other pixels than before, so that caches written before are not used."""
log = logging.getLogger(__name__)


def decode_or_read(listings: Sequence[Listing], root: Path, name: str, max_bytes: int) -> list[Pixels] | None:
    """Return the pixels ``[n, 3, height, width]`` of each listing; None if sizes differ or they take more than ``max_bytes``.

    The pixels are cached in ``<root>/.altprop/<name>-<digest>.npy``. The digest changes with every file that is added, removed,
    renamed or written. If that folder is not writable, the images are decoded every time.

    Raises ConfigError that names every file that cannot be decoded.
    """
    width, height = _size(listings)
    count = sum(map(len, listings))
    if count * 3 * width * height > max_bytes:
        return None
    folder, stem = root / CACHE, name.replace(os.sep, "-")
    path, shape = folder / f"{stem}-{_digest(listings)}.npy", (count, 3, height, width)
    pixels = _read(path, shape)
    if pixels is None:
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / f"{stem}.lock"))
                pixels = _read(path, shape)  # another process may have written it in the meantime
            except OSError as error:
                log.warning("%s cannot be locked (%s)", folder, error.strerror)
            if pixels is None:
                pixels = _decode(listings, width, height)
                if pixels is None:
                    return None
                _write_if_possible(path, pixels)
    ends = np.cumsum([len(listing) for listing in listings])
    return np.split(pixels, ends[:-1])


def _size(listings: Sequence[Listing]) -> tuple[int, int]:
    """The width and height of the first image that can be decoded. Raises ConfigError with the problems of all if none can."""
    for listing in listings:
        for index in range(len(listing)):
            with suppress(DataError):
                width, height = open_image(listing.path(index)).size
                return width, height
    raise_all(unusable_images(listings))
    raise AssertionError("an image can be decoded after all")


def _digest(listings: Sequence[Listing]) -> str:
    """Return a digest of the names, sizes and modification times of all files, and of the way in which they are decoded."""
    digest = hashlib.sha256(DECODING)
    for listing in listings:
        digest.update(str(listing.folder.name).encode())
        for index, name in enumerate(listing.names):
            try:
                status = listing.path(index).stat()
            except OSError:  # decoding it says why
                digest.update(b"%s/unreadable;" % name)
                continue
            digest.update(b"%s/%d/%d;" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def _read(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the cached array, or None if it is missing or not as expected."""
    try:
        pixels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write_if_possible(path: Path, pixels: Pixels) -> None:
    """Write the cache; if that fails, warn that images will be decoded at every start."""
    try:
        _write(path, pixels)
    except OSError as error:
        log.warning("%s cannot be written (%s): images will be decoded at every start", path, error.strerror)


def _write(path: Path, pixels: Pixels) -> None:
    """Write the cache atomically, and remove older caches of the same folder."""
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
    """Decode all images; None as soon as one has a different size. Raises ConfigError that names every unusable file."""
    paths = [path for listing in listings for path in listing.paths()]
    pixels = np.empty((len(paths), 3, height, width), dtype=np.uint8)
    errors: list[DataError] = []
    for row, path in enumerate(with_progress(paths, "decoding images", len(paths))):
        try:
            image = open_image(path)
        except DataError as error:
            errors.append(error)
            continue
        if image.size != (width, height):
            return None
        pixels[row] = np.asarray(image).transpose(2, 0, 1)
    raise_all(errors)
    return pixels


def check_once(listings: Sequence[Listing], root: Path, name: str, crops: Crops, workers: int, *, dali: bool = False) -> None:
    """Check that every image can be decoded and is large enough for its crop, before it is streamed.

    This takes as long as one epoch of decoding, so ``<root>/.altprop/<name>-<digest>.checked`` says that it was done. The digest
    changes with the names of the files, the folders that they are in, and the crops, but not with the contents of files.

    Args:
        listings: Those of the training images and of the test images.
        root: ``paths.data``.
        name: The folder of the images below ``root``.
        crops: The crops of both splits.
        workers: Number of threads.
        dali: Whether DALI decodes the images, which cannot convert all of them.

    Raises:
        ConfigError: That names every unusable file.
    """
    folder, stem = root / CACHE, f"{name.replace(os.sep, '-')}-"
    stamp = folder / f"{stem}{_digest_of_names(listings, f'{crops}{not dali}')}{CHECKED}"
    if stamp.exists():
        return
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that cannot be written: every process checks, at every start
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / f"{stem}checked.lock"))
        if stamp.exists():  # another process has checked in the meantime
            return
        errors = []
        for listing, view in zip(listings, (crops.view(train=True), crops.view(train=False))):
            paths = listing.paths()
            for path, facts in zip(paths, look_at_images(paths, facts_of, workers=workers, title="checking images")):
                error = facts if isinstance(facts, DataError) else streaming_error(path, facts, view, dali=dali)
                if error is not None:
                    errors.append(error)
        raise_all(errors)
        with suppress(OSError):
            for old in folder.glob(f"{glob.escape(stem)}*{CHECKED}"):
                old.unlink()
            stamp.touch()


def _digest_of_names(listings: Sequence[Listing], settings: str) -> str:
    digest = hashlib.sha256(DECODING + settings.encode())
    for listing in listings:
        digest.update(listing.names.tobytes() + str(listing.folder.name).encode())
        for folder in dict.fromkeys(os.path.dirname(name) for name in listing.names.tolist()):
            digest.update(str((listing.folder / os.fsdecode(folder)).stat().st_mtime_ns).encode())
    return digest.hexdigest()[:16]
