"""Unpacking of ImageNet's official archives into class folders."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from altprop._torchvision import import_torchvision
from altprop.data.errors import DataError
from altprop.data.files.archives import safe_extraction
from altprop.problems import ConfigError, Problem, RunFailed

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
QUALITY = 95
"""JPEG quality of resized images."""
SHARE_WHEN_RESIZED = 0.6
"""Disk space of images resized to 256 pixels or less, as a share of the archives' size; a cautious estimate."""
PIECE_SIZE = 500
"""Validation images in one piece of work."""


@dataclass(frozen=True)
class Piece:
    """Files of an archive that are unpacked together. ``members`` are the offset, size and target of each."""

    archive: Path
    members: tuple[tuple[int, int, Path], ...]
    resize: int | None


def unpack_imagenet(archives: Path, folder: Path, resize: int | None, workers: int) -> tuple[int, int]:
    """Unpack into ``folder``/train/<class> and ``folder``/val/<class>, and return the number of images in each.

    ``resize`` scales the short side of every image to that many pixels (bilinear, JPEG quality 95). A call continues where an
    interrupted one stopped. Folders get their final names once they are complete.

    Raises ConfigError if an archive is missing or truncated, and RunFailed if there is not enough disk space.
    """
    missing = [name for name in (TRAIN, VAL, DEVKIT) if not (archives / name).is_file()]
    if missing:
        allowed = "the official archives, see https://image-net.org/download"
        raise ConfigError([Problem("archives", f"{', '.join(missing)} not in {archives}", allowed, "archives=<folder>")])
    folder.mkdir(parents=True, exist_ok=True)
    labels = _validation_labels(archives / DEVKIT, folder)
    pending: dict[str, list[Piece]] = {}
    if not (folder / "train").is_dir():
        pending["train"] = list(_train_pieces(archives / TRAIN, folder / "train.partial", resize))
    if not (folder / "val").is_dir():
        pending["val"] = list(_val_pieces(archives / VAL, folder / "val.partial", labels, resize))
    _check_space(folder, [piece for pieces in pending.values() for piece in pieces], resize)
    with Progress(console=Console(stderr=True)) as progress, ProcessPoolExecutor(max(workers, 1)) as pool:
        for split, pieces in pending.items():
            (folder / f"{split}.partial").mkdir(exist_ok=True)
            run: Callable[[Piece], None] = _unpack_class if split == "train" else _unpack_images
            for _ in progress.track(pool.map(run, pieces), total=len(pieces), description=split):
                pass
            (folder / f"{split}.partial").rename(folder / split)
    return _count(folder / "train"), _count(folder / "val")


def _validation_labels(devkit: Path, folder: Path) -> list[str]:
    """Return the class of each validation image, by number. torchvision verifies and reads the archive."""
    import_torchvision()
    from torchvision.datasets.imagenet import META_FILE, load_meta_file, parse_devkit_archive

    if not (folder / META_FILE).is_file():
        try:
            with safe_extraction():
                parse_devkit_archive(str(folder), str(devkit))
        except (RuntimeError, OSError, tarfile.TarError) as error:
            raise DataError(devkit, f"cannot be used ({error})", "the official development kit") from error
    labels: list[str] = load_meta_file(str(folder))[1]
    return labels


def _train_pieces(archive: Path, folder: Path, resize: int | None) -> Iterator[Piece]:
    """Yield one piece for each class that is not unpacked yet; the archive holds one inner archive per class."""
    for member in _members(archive):
        name = Path(member.name)
        if name.suffix == ".tar" and not (folder / name.stem).is_dir():
            yield Piece(archive, ((member.offset_data, member.size, folder / name.stem),), resize)


def _val_pieces(archive: Path, folder: Path, labels: list[str], resize: int | None) -> Iterator[Piece]:
    """Yield the validation images that are not unpacked yet, up to 500 in a piece."""
    members = sorted((Path(member.name).name, member.offset_data, member.size) for member in _members(archive))
    if len(members) != len(labels):
        raise DataError(archive, f"holds {len(members)} images", f"{len(labels)}, the number in the development kit")
    pending = [
        (offset, size, folder / label / name)
        for (name, offset, size), label in zip(members, labels)
        if not (folder / label / name).is_file()
    ]
    for start in range(0, len(pending), PIECE_SIZE):
        yield Piece(archive, tuple(pending[start : start + PIECE_SIZE]), resize)


def _members(archive: Path) -> list[tarfile.TarInfo]:
    """List the files of an archive. Raises DataError if it is truncated, which reading the headers reveals."""
    try:
        with tarfile.open(archive, "r:") as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(archive, f"cannot be read ({error})", "the complete official archive") from error
    if not members or members[-1].offset_data + members[-1].size > archive.stat().st_size:
        raise DataError(archive, "is truncated", "the complete official archive")
    return members


def _check_space(folder: Path, pieces: Iterable[Piece], resize: int | None) -> None:
    """Raise RunFailed if the pieces do not fit on the disk."""
    total = sum(size for piece in pieces for _, size, _ in piece.members)
    needed = int(total * (SHARE_WHEN_RESIZED if resize is not None else 1))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunFailed(f"{folder} needs about {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")


def _unpack_class(piece: Piece) -> None:
    """Unpack the inner archive of one class. Its folder gets its final name once it is complete."""
    ((offset, _, folder),) = piece.members
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with piece.archive.open("rb") as file:
        file.seek(offset)
        try:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is not None:
                        (partial / Path(member.name).name).write_bytes(_resized(content.read(), piece, member.name))
        except (tarfile.TarError, EOFError) as error:
            raise DataError(
                piece.archive, f"is truncated in {folder.name}.tar ({error})", "the complete official archive"
            ) from error
    partial.rename(folder)


def _unpack_images(piece: Piece) -> None:
    """Unpack single images, each atomically."""
    with piece.archive.open("rb") as file:
        for offset, size, path in piece.members:
            file.seek(offset)
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(_resized(file.read(size), piece, path.name))
            os.replace(temporary, path)


def _resized(content: bytes, piece: Piece, name: str) -> bytes:
    """Return an encoded image, scaled to a short side of ``piece.resize`` pixels unless that is None."""
    if piece.resize is None:
        return content
    try:
        with Image.open(io.BytesIO(content)) as image:
            short = min(image.size)
            size = tuple(piece.resize if side == short else int(piece.resize * side / short) for side in image.size)
            scaled = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            piece.archive, f"holds {name}, which cannot be decoded ({error})", "the complete official archive"
        ) from error
    encoded = io.BytesIO()
    scaled.save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
