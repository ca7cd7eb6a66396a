"""Which training images are held out for validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from altprop.data.errors import DataError
from altprop.problems import Problem

How = Literal["tail", "random", "stratified"]
HOWS = ("tail", "random", "stratified")
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Validation:
    """A part of the training images, held out.

    ``size`` is a number of images or, below 1, a share of them; 0 holds out none. ``how`` takes them from the end of the file
    order (``tail``), by one permutation drawn from ``seed`` (``random``), or with equal shares of every class (``stratified``).
    A ``file`` under ``paths.data`` with the keys ``train`` and ``validation`` (JSON or npz, indices into the training images)
    replaces all three.
    """

    size: float = 0
    how: How = "tail"
    seed: int = 0
    file: str | None = None

    def count(self, num_samples: int) -> int:
        """How many of ``num_samples`` are held out."""
        if 0 < self.size < 1:
            return num_samples - round(num_samples * (1 - self.size))
        return int(self.size)

    def split(self, targets: NDArray[Any], root: Path) -> tuple[Indices, Indices]:
        """Indices of the training and of the validation images, each in file order.

        :raises DataError: where the index file does not fit the training images.
        :raises ValueError: where the held-out part leaves nothing to train on.
        """
        num_samples = len(targets)
        if self.file is not None:
            return read_indices(root / self.file, num_samples)
        held_out = self.count(num_samples)
        if not 0 <= held_out < num_samples:
            raise ValueError(f"{held_out} validation images cannot be held out of {num_samples}")
        chosen = np.zeros(num_samples, dtype=bool)
        if self.how == "tail":
            chosen[num_samples - held_out :] = True
        elif self.how == "random":
            # The legacy generator, because its stream is frozen for all versions of numpy.
            order = np.random.RandomState(self.seed).permutation(num_samples)
            chosen[order[num_samples - held_out :]] = True
        else:
            chosen[_stratified(targets, held_out, self.seed)] = True
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range, an index file that is not there."""
        size, how, file = config.get("size", 0), config.get("how", "tail"), config.get("file")
        if isinstance(size, (int, float)) and (size < 0 or (size >= 1 and size != int(size))):
            yield Problem("dataset.validation.size", str(size), "a number of images, a share below 1, or 0 for none")
        if how not in HOWS:
            yield Problem("dataset.validation.how", str(how), f"one of {', '.join(HOWS)}")
        seed = config.get("seed", 0)
        if isinstance(seed, int) and not 0 <= seed < 2**32:
            yield Problem("dataset.validation.seed", str(seed), "a whole number from 0 to 2**32 - 1")
        if isinstance(file, str):
            if size:
                given = f"{size} beside an index file"
                yield Problem("dataset.validation.size", given, "0, because the file says it", "dataset.validation.size=0")
            if not file.endswith((".json", ".npz")):
                yield Problem("dataset.validation.file", file, "a .json or .npz file with the keys train and validation")
            elif not (path := Path(root["paths"]["data"]) / file).is_file():
                yield Problem("dataset.validation.file", f"{path} is not there", "a .json or .npz file under paths.data, or null")


def _stratified(targets: NDArray[Any], held_out: int, seed: int) -> Indices:
    """``held_out`` indices, each class with its share of them; the largest remainders decide what rounding leaves open."""
    random = np.random.RandomState(seed)
    classes, counts = np.unique(targets, return_counts=True)
    shares = counts * held_out / len(targets)
    quota = np.floor(shares).astype(int)
    missing = held_out - quota.sum()
    quota[np.argsort(quota - shares, kind="stable")[:missing]] += 1
    chosen = [random.permutation(np.flatnonzero(targets == name))[:number] for name, number in zip(classes, quota)]
    return np.concatenate(chosen)


def read_indices(path: Path, num_samples: int) -> tuple[Indices, Indices]:
    """Training and validation indices from a JSON or npz file, in file order.

    :raises DataError: where keys are missing, an index is out of range or comes twice, or no image is left for training.
    """
    expected = "two lists of indices, train and validation, that share no index"
    try:
        if path.suffix == ".npz":
            with np.load(path) as archive:
                parts = [np.asarray(archive[key]) for key in ("train", "validation")]
        else:
            content = json.loads(path.read_text())
            parts = [np.asarray(content[key]) for key in ("train", "validation")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(path, f"cannot be read as a split ({error!r})", expected) from error
    if any(part.ndim != 1 or part.size == 0 or not np.issubdtype(part.dtype, np.integer) for part in parts):
        raise DataError(path, "holds something other than two lists of whole numbers", expected)
    train, validation = (np.sort(part.astype(np.int64)) for part in parts)
    together = np.concatenate([train, validation])
    if together.min() < 0 or together.max() >= num_samples:
        raise DataError(path, f"holds indices from {together.min()} to {together.max()}", f"indices from 0 to {num_samples - 1}")
    if len(np.unique(together)) != len(together):
        raise DataError(path, "names an image twice", expected)
    return train, validation
