"""Downloads of the small data sets, using torchvision's addresses and checksums."""

from __future__ import annotations

import tempfile
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from altprop._torchvision import import_torchvision
from altprop.data.files.archives import safe_extraction
from altprop.data.sets.cifar import CIFAR10, CIFAR100
from altprop.data.sets.in_memory import InMemory
from altprop.data.sets.mnist import MNIST, FashionMNIST
from altprop.data.sets.svhn import SVHN
from altprop.problems import ConfigError, Problem, RunFailed, message_of

ARCHIVES = (".gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Download:
    """How one data set is downloaded and verified.

    Args:
        folder: The data set's folder below ``paths.data``.
        download: Downloads it, given torchvision's ``datasets`` module, a folder that stands for ``paths.data``, and the data
            set's configuration.
        checksums: Returns the MD5 of each file in ``folder`` that torchvision knows, given ``datasets`` and the configuration.
    """

    folder: str
    download: Callable[[Any, Path, Mapping[str, Any]], None]
    checksums: Callable[[Any, Mapping[str, Any]], dict[str, str]]


def _by_constructor(name: str) -> Callable[[Any, Path, Mapping[str, Any]], None]:
    def download(datasets: Any, root: Path, config: Mapping[str, Any]) -> None:
        getattr(datasets, name)(root, download=True)

    return download


def _mnist(name: str) -> Download:
    return Download(f"{name}/raw", _by_constructor(name), lambda datasets, config: {})


def _cifar(name: str, folder: str) -> Download:
    def checksums(datasets: Any, config: Mapping[str, Any]) -> dict[str, str]:
        reader = getattr(datasets, name)
        return {**dict(reader.train_list + reader.test_list), reader.meta["filename"]: reader.meta["md5"]}

    return Download(folder, _by_constructor(name), checksums)


def _svhn() -> Download:
    def splits(config: Mapping[str, Any]) -> list[str]:
        return [name.removesuffix("_32x32.mat") for name in SVHN.files(config.get("extra") is True)]

    def download(datasets: Any, root: Path, config: Mapping[str, Any]) -> None:
        for split in splits(config):
            datasets.SVHN(root / "svhn", split, download=True)

    def checksums(datasets: Any, config: Mapping[str, Any]) -> dict[str, str]:
        return {datasets.SVHN.split_list[split][1]: datasets.SVHN.split_list[split][2] for split in splits(config)}

    return Download("svhn", download, checksums)


DOWNLOADS: dict[type[InMemory], Download] = {
    MNIST: _mnist("MNIST"),
    FashionMNIST: _mnist("FashionMNIST"),
    CIFAR10: _cifar("CIFAR10", CIFAR10.folder),
    CIFAR100: _cifar("CIFAR100", CIFAR100.folder),
    SVHN: _svhn(),
}


def fetch(data_set: InMemory, config: Mapping[str, Any], root: Path) -> bool:
    """Download the files of ``data_set`` to ``root``. Return False if they were complete already.

    Files are downloaded into a temporary folder in ``root`` and moved into place after their checksums have been verified. Only
    one process downloads a data set; others wait for it.

    Raises RunFailed if a download fails or has the wrong content, and ConfigError if there is nothing to download.
    """
    cls = type(data_set)
    if cls not in DOWNLOADS:
        names = ", ".join(sorted(_name(known) for known in DOWNLOADS))
        description = f"{data_set.display_name} is not available for download"
        raise ConfigError([Problem("dataset", description, f"one of {names}", "action=list")])
    source, datasets = DOWNLOADS[cls], import_torchvision().datasets
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".fetch-{_name(cls)}.lock"):
            defect = _defect(data_set, source, datasets, config, root)
            if defect is None:
                return False
            print(f"{defect}: downloading")
            with tempfile.TemporaryDirectory(prefix=f".fetch-{_name(cls)}-", dir=root) as folder:
                _download(data_set, source, datasets, config, Path(folder))
                _move(Path(folder) / source.folder, root / source.folder)
    return True


def _name(cls: type[Any]) -> str:
    """Return the name of the data set's file in ``conf/dataset``."""
    return str(cls.name)


def _defect(data_set: InMemory, source: Download, datasets: Any, config: Mapping[str, Any], root: Path) -> str | None:
    """Describe what is missing from or wrong with the files of a data set; None if they are complete."""
    from torchvision.datasets.utils import check_integrity

    for name, checksum in source.checksums(datasets, config).items():
        path = root / source.folder / name
        if not path.is_file():
            return f"{path} is missing"
        if not check_integrity(str(path), checksum):
            return f"{path} has the wrong checksum"
    try:
        data_set.read(root)
    except ConfigError as error:
        return str(error.problems[0].description)
    return None


def _download(data_set: InMemory, source: Download, datasets: Any, config: Mapping[str, Any], folder: Path) -> None:
    try:
        with safe_extraction():
            source.download(datasets, folder, config)
    except (urllib.error.URLError, OSError, RuntimeError, EOFError) as error:  # torchvision raises all of them
        raise RunFailed(f"{data_set.display_name} cannot be downloaded: {message_of(error)}") from error
    if (defect := _defect(data_set, source, datasets, config, folder)) is not None:
        raise RunFailed(f"{data_set.display_name} was downloaded, but {defect}")


def _move(source: Path, target: Path) -> None:
    """Move the files one by one, each atomically, so that no reader sees half a file. Archives are left behind."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in ARCHIVES:
            path.replace(target / path.name)


@contextmanager
def _writable(root: Path) -> Iterator[None]:
    """Turn a PermissionError into one line that says how to choose another folder."""
    try:
        yield
    except PermissionError as error:
        raise RunFailed(f"cannot write to {error.filename or root}; choose another folder with paths.data=…") from error
