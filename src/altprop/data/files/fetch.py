"""Downloads of the small data sets, by torchvision's own addresses and checksums."""

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
from altprop.data.sets.cifar import CIFAR10, CIFAR100
from altprop.data.sets.in_memory import InMemory
from altprop.data.sets.mnist import MNIST, FashionMNIST
from altprop.data.sets.svhn import SVHN
from altprop.problems import ConfigError, Problem, RunFailed

ARCHIVES = (".gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Download:
    """How one data set is downloaded and checked. ``folder`` is where it lies below ``paths.data``."""

    folder: Callable[[type[Any]], str]
    download: Callable[[Any, Path, Mapping[str, Any]], None]
    """Of torchvision's ``datasets`` module, a folder that stands for ``paths.data``, and the data set's configuration."""
    checksums: Callable[[Any, Mapping[str, Any]], dict[str, str]]
    """MD5 of each file in ``folder``, as far as torchvision knows them."""


def _mnist(name: str, folder: str) -> Download:
    def download(datasets: Any, root: Path, config: Mapping[str, Any]) -> None:
        getattr(datasets, name)(root, download=True)

    return Download(lambda cls: f"{folder}/raw", download, lambda datasets, config: {})


def _cifar(name: str) -> Download:
    def download(datasets: Any, root: Path, config: Mapping[str, Any]) -> None:
        getattr(datasets, name)(root, download=True)

    def checksums(datasets: Any, config: Mapping[str, Any]) -> dict[str, str]:
        reader = getattr(datasets, name)
        return {**dict(reader.train_list + reader.test_list), reader.meta["filename"]: reader.meta["md5"]}

    return Download(lambda cls: str(cls.folder), download, checksums)


def _svhn() -> Download:
    def parts(config: Mapping[str, Any]) -> list[str]:
        return [name.removesuffix("_32x32.mat") for name in SVHN.files(config.get("extra") is True)]

    def download(datasets: Any, root: Path, config: Mapping[str, Any]) -> None:
        for part in parts(config):
            datasets.SVHN(root / "svhn", part, download=True)

    def checksums(datasets: Any, config: Mapping[str, Any]) -> dict[str, str]:
        return {datasets.SVHN.split_list[part][1]: datasets.SVHN.split_list[part][2] for part in parts(config)}

    return Download(lambda cls: "svhn", download, checksums)


DOWNLOADS: dict[type[InMemory], Download] = {
    MNIST: _mnist("MNIST", "MNIST"),
    FashionMNIST: _mnist("FashionMNIST", "FashionMNIST"),
    CIFAR10: _cifar("CIFAR10"),
    CIFAR100: _cifar("CIFAR100"),
    SVHN: _svhn(),
}


def fetch(data_set: InMemory, config: Mapping[str, Any], root: Path) -> bool:
    """Bring the files of ``data_set`` to ``root``; False where they are there already, whole.

    They are downloaded into a folder beside their place and moved there once their checksums are right. Only one process
    downloads a data set; others wait for it.

    :raises RunFailed: where a download fails or is not what it should be.
    :raises ConfigError: where there is nothing to download.
    """
    cls = type(data_set)
    if cls not in DOWNLOADS:
        names = ", ".join(sorted(str(getattr(known, "name", "")) for known in DOWNLOADS))
        raise ConfigError([Problem("dataset", f"{data_set.described} is not downloaded", f"one of {names}", "action=list")])
    way, datasets = DOWNLOADS[cls], import_torchvision().datasets
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".fetch-{config_name(cls)}.lock"):
            broken = _broken(data_set, way, datasets, config, root)
            if broken is None:
                return False
            print(f"{broken}: downloading")
            with tempfile.TemporaryDirectory(prefix=f".fetch-{config_name(cls)}-", dir=root) as folder:
                _download(data_set, way, datasets, config, Path(folder))
                _move(Path(folder) / way.folder(cls), root / way.folder(cls))
    return True


def config_name(cls: type[Any]) -> str:
    """The name of the data set's file in ``conf/dataset``."""
    return str(cls.name)


def _broken(data_set: InMemory, way: Download, datasets: Any, config: Mapping[str, Any], root: Path) -> str | None:
    """What is missing or wrong with the files of a data set, or None."""
    from torchvision.datasets.utils import check_integrity

    for name, checksum in way.checksums(datasets, config).items():
        path = root / way.folder(type(data_set)) / name
        if not path.is_file():
            return f"{path} is missing"
        if not check_integrity(str(path), checksum):
            return f"{path} has another checksum"
    try:
        data_set.read(root)
    except ConfigError as error:
        return str(error.problems[0].description)
    return None


def _download(data_set: InMemory, way: Download, datasets: Any, config: Mapping[str, Any], folder: Path) -> None:
    try:
        way.download(datasets, folder, config)
    except (urllib.error.URLError, OSError, RuntimeError, EOFError) as error:  # torchvision raises all of them
        raise RunFailed(f"{data_set.described} cannot be downloaded: {' '.join(str(error).split())}") from error
    if (broken := _broken(data_set, way, datasets, config, folder)) is not None:
        raise RunFailed(f"{data_set.described} was downloaded, but {broken}")


def _move(source: Path, target: Path) -> None:
    """Each file at once, so that a reader never meets half of one; archives stay behind."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in ARCHIVES:
            path.replace(target / path.name)


@contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise RunFailed(f"{error.filename or root} cannot be written; choose another folder with paths.data=…") from error
