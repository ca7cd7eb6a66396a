"""What all data sets have in common: their keys, and how the training images are divided."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from altprop.data.base import Data, LoadContext
from altprop.data.checks import check_loading, check_validation_size
from altprop.data.validation import Validation
from altprop.problems import ConfigError, Problem

Selection = slice | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """A data set of images.

    ``mean`` and ``std`` are in units of [0, 1], one for all channels or one each. ``limit_train`` and ``limit_test`` keep the
    first so many images, ``limit_train`` after the validation images were taken out. The last, smaller mini-batch of a training
    epoch is left out where ``drop_last`` is set.
    """

    title: ClassVar[str]
    """How reports call it."""
    channels: ClassVar[int | None] = None
    num_train: ClassVar[int | None] = None
    """Number of training images, where it is known without reading them."""

    batch_size: int
    eval_batch_size: int
    mean: Sequence[float]
    std: Sequence[float]
    drop_last: bool = False
    validation: Validation = field(default_factory=Validation)
    limit_train: int | None = None
    limit_test: int | None = None

    @property
    def described(self) -> str:
        """How messages call this set."""
        return self.title

    @abstractmethod
    def load(self, context: LoadContext) -> Data:
        """The splits of this data set.

        :raises ConfigError: where files are missing or torn, or settings do not fit the files.
        """

    def divide(self, labels: NDArray[np.int64], root: Path) -> tuple[Selection, Selection | None]:
        """Which training images are trained on (``limit_train`` applied), and which are held out, if any.

        :raises ConfigError: where the held-out part leaves nothing to train on, or an index file does not fit.
        """
        if self.validation.file is None:
            held_out = self.validation.count(len(labels))
            if held_out == 0:
                return slice(0, self.limit_train), None
            if held_out >= len(labels):
                allowed = f"less than the {len(labels):,} training images of {self.described}"
                raise ConfigError([Problem("dataset.validation.size", f"{self.validation.size:g}", allowed)])
        train, validation = self.validation.split(labels, root)
        return _consecutive(train[: self.limit_train]), _consecutive(validation)

    def misfits(self, num_samples: int, channels: int, context: LoadContext) -> Iterator[Problem]:
        """Problems that show only once the images are there; ``num_samples`` are left to train on."""
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                allowed = f"one value, or one for each of the {channels} channels"
                yield Problem(f"dataset.{key}", f"{len(values)} values", allowed)
        if self.batch_size % context.world_size:
            given = f"{self.batch_size} on {context.world_size} processes"
            yield Problem("dataset.batch_size", given, f"a multiple of {context.world_size}")
        if self.drop_last and num_samples < self.batch_size:
            given = f"{self.batch_size} with drop_last and {num_samples} training images"
            yield Problem("dataset.batch_size", given, f"at most {num_samples}", "dataset.drop_last=false")

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range; subclasses add missing files."""
        yield from check_loading(config, cls.channels)
        yield from check_validation_size(config, cls.num_train, cls.title)


def _consecutive(indices: NDArray[np.int64]) -> Selection:
    """A slice where the indices are consecutive, which spares a copy of the images."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first + 1 == len(indices) else indices
