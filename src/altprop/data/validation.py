"""The validation split: which training images are held out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from altprop.data.errors import DataError
from altprop.files import read_bytes, require_regular
from altprop.problems import Problem
from altprop.ranges import FilePath, NonNegativeFloat

Method = Literal["tail", "random", "stratified"]
METHODS = ("tail", "random", "stratified")
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Training images held out for validation.

    Args:
        size: Number of images, or their share if below 1. 0 holds out none.
        how: ``tail`` takes the end of the file order, ``random`` the end of one permutation drawn from ``seed``, and
            ``stratified`` an equal share of every class.
        seed: Seed of ``random`` and ``stratified``; independent of the run's seed.
        file: A JSON or npz file under ``paths.data`` with the keys ``train`` and ``validation``, each a list of indices into the
            training images. Replaces the other three.
    """

    size: NonNegativeFloat = 0
    how: Method = "tail"
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    file: FilePath | None = None

    def count(self, num_samples: int) -> int:
        """Return how many of ``num_samples`` images are held out."""
        if 0 < self.size < 1:
            return num_samples - round(num_samples * (1 - self.size))
        return int(self.size)

    def split(self, targets: NDArray[Any], root: Path) -> tuple[Indices, Indices]:
        """Return the indices of the training images and of the validation images, each in file order.

        ``targets`` ``[n]`` are the labels of all training images. Raises DataError if the index file does not fit the training
        images, and ValueError if no image is left to train on.
        """
        num_samples = len(targets)
        if self.file is not None:
            return read_indices(root / self.file, num_samples)
        held_out = self.count(num_samples)
        if not 0 <= held_out < num_samples:
            raise ValueError(f"cannot hold out {held_out} validation images of {num_samples}")
        mask = np.zeros(num_samples, dtype=bool)
        if self.how == "tail":
            mask[num_samples - held_out :] = True
        elif self.how == "random":
            # The legacy generator, because its stream is frozen across numpy versions.
            order = np.random.RandomState(self.seed).permutation(num_samples)
            mask[order[num_samples - held_out :]] = True
        else:
            mask[stratified(targets, held_out, self.seed)] = True
        return np.flatnonzero(~mask), np.flatnonzero(mask)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for a missing index file."""
        size, how, file = config.get("size", 0), config.get("how", "tail"), config.get("file")
        if isinstance(size, (int, float)) and (size < 0 or (size >= 1 and size != int(size))):
            yield Problem("dataset.validation.size", str(size), "a number of images, a share below 1, or 0 for none")
        if how not in METHODS:
            yield Problem("dataset.validation.how", str(how), f"one of {', '.join(METHODS)}")
        seed = config.get("seed", 0)
        if isinstance(seed, int) and not 0 <= seed < 2**32:
            yield Problem("dataset.validation.seed", str(seed), "an integer from 0 to 2**32 - 1")
        if isinstance(file, str):
            if size:
                allowed = "0, because the file determines the size"
                yield Problem("dataset.validation.size", f"{size} with an index file", allowed, "dataset.validation.size=0")
            if not file.endswith((".json", ".npz")):
                yield Problem("dataset.validation.file", file, "a .json or .npz file with the keys train and validation")
            elif not (path := Path(root["paths"]["data"]) / file).is_file():
                yield Problem(
                    "dataset.validation.file", f"{path} does not exist", "a .json or .npz file under paths.data, or null"
                )


def stratified(targets: NDArray[Any], number: int, seed: int | None) -> Indices:
    """Return ``number`` indices with an equal share of each class; what rounding leaves goes to the largest remainders.

    The indices of each class are drawn with ``seed``, or are the first of the class if it is None.
    """
    random = None if seed is None else np.random.RandomState(seed)
    classes, counts = np.unique(targets, return_counts=True)
    shares = counts * number / len(targets)
    quota = np.floor(shares).astype(int)
    remainder = number - quota.sum()
    quota[np.argsort(quota - shares, kind="stable")[:remainder]] += 1
    members = [np.flatnonzero(targets == name) for name in classes]
    if random is not None:
        members = [random.permutation(indices) for indices in members]
    return np.concatenate([indices[:share] for indices, share in zip(members, quota)])


def read_indices(path: Path, num_samples: int) -> tuple[Indices, Indices]:
    """Read the training and validation indices of a JSON or npz file, and return each in file order.

    Raises DataError if a key is missing, an index is out of range or occurs twice, or either list is empty.
    """
    expected = "two lists of indices, train and validation, that share no index"
    try:
        if path.suffix == ".npz":
            require_regular(path)
            with np.load(path) as archive:
                lists = [np.asarray(archive[key]) for key in ("train", "validation")]
        else:
            content = json.loads(read_bytes(path))
            lists = [np.asarray(content[key]) for key in ("train", "validation")]
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, BadZipFile) as error:
        raise DataError(path, f"cannot be read as a split ({error!r})", expected) from error
    if any(indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer) for indices in lists):
        raise DataError(path, "does not hold two lists of integers", expected)
    train, validation = (np.sort(indices.astype(np.int64)) for indices in lists)
    together = np.concatenate([train, validation])
    if together.min() < 0 or together.max() >= num_samples:
        raise DataError(path, f"holds indices from {together.min()} to {together.max()}", f"indices from 0 to {num_samples - 1}")
    if len(np.unique(together)) != len(together):
        raise DataError(path, "contains an index twice", expected)
    return train, validation
