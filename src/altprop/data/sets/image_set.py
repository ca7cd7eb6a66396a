"""The base class of all data sets: their common keys, and the division into training and validation images."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from numpy.typing import NDArray

from altprop.data.base import Data, LoadContext
from altprop.data.checks import check_loading, check_validation_size
from altprop.data.validation import Validation, stratified
from altprop.problems import ConfigError, Problem
from altprop.ranges import PositiveInt

log = logging.getLogger(__name__)

PixelMean = Annotated[float, Ge(0), Le(1)]
"""A mean of pixels in units of [0, 1]; in units of [0, 255] it would be above 1."""
PixelDeviation = Annotated[float, Gt(0), Le(10)]
"""A standard deviation in the same units; some papers divide by several of them."""

Selection = slice | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """A data set of images.

    Args:
        batch_size: Training images in a mini-batch, all processes together.
        eval_batch_size: Images in a mini-batch of an evaluation.
        mean: Mean of the pixels in units of [0, 1]; one value, or one per channel.
        std: Standard deviation of the pixels in units of [0, 1]; one value, or one per channel.
        drop_last: Whether to skip the last, smaller mini-batch of a training epoch.
        validation: Which training images are held out.
        limit_train: Keep only so many training images, after validation images were taken out: the first ones, or the first of
            each class in equal shares if the files are in the order of their classes.
        limit_test: Keep only so many test images, in the same way.
    """

    title: ClassVar[str]
    """What reports call this set."""
    channels: ClassVar[int | None] = None
    num_train: ClassVar[int | None] = None
    """Number of training images, if known without reading them."""
    class_by_class: ClassVar[bool] = False
    """Whether the files are in the order of their classes, so that the first images would all be of one class."""

    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    mean: Annotated[Sequence[PixelMean], MinLen(1)]
    std: Annotated[Sequence[PixelDeviation], MinLen(1)]
    drop_last: bool = False
    validation: Validation = field(default_factory=Validation)
    limit_train: PositiveInt | None = None
    limit_test: PositiveInt | None = None

    def prefetch(self) -> None:  # noqa: B027 - most sets have nothing to read in advance
        """Read what all runs of a process can share. Called once, in the process that the runs of a sweep are forked from."""

    @property
    def display_name(self) -> str:
        """What messages call this set."""
        return self.title

    @abstractmethod
    def load(self, context: LoadContext) -> Data:
        """Load the splits. Raises ConfigError if files are missing or truncated, or if settings do not fit the files."""

    def divide(self, labels: NDArray[np.int64], root: Path) -> tuple[Selection, Selection | None]:
        """Select the images to train on (with ``limit_train`` applied), and the validation images, or None.

        Raises ConfigError if no image is left to train on, or if an index file does not fit.
        """
        if self.validation.file is None:
            held_out = self.validation.count(len(labels))
            if held_out == 0 and self.validation.size > 0:
                allowed = f"a share of the {len(labels):,} training images of {self.display_name} that is one image or more"
                raise ConfigError([Problem("dataset.validation.size", f"{self.validation.size:g}", allowed)])
            if held_out == 0:
                return self.limited(labels, self.limit_train), None
            if held_out >= len(labels):
                allowed = f"fewer than the {len(labels):,} training images of {self.display_name}"
                raise ConfigError([Problem("dataset.validation.size", f"{self.validation.size:g}", allowed)])
        train, validation = self.validation.split(labels, root)
        return _consecutive(train[self.limited(labels[train], self.limit_train)]), _consecutive(validation)

    def limited(self, labels: NDArray[np.int64], limit: int | None) -> Selection:
        """Select at most ``limit`` of the images with ``labels`` ``[n]``, in file order."""
        if limit is None or limit >= len(labels) or not self.class_by_class:
            return slice(0, limit)
        return np.sort(stratified(labels, limit, seed=None))

    def mismatches(self, num_samples: int, channels: int, context: LoadContext) -> Iterator[Problem]:
        """Yield problems that only show once the images are read. ``num_samples`` images are left to train on."""
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                allowed = f"one value, or one for each of the {channels} channels"
                yield Problem(f"dataset.{key}", f"{len(values)} values", allowed)
        if self.batch_size % context.world_size:
            description = f"{self.batch_size} on {context.world_size} processes"
            yield Problem("dataset.batch_size", description, f"a multiple of {context.world_size}")
        if self.drop_last and num_samples < self.batch_size:
            description = f"{self.batch_size} with drop_last and {num_samples} training images"
            yield Problem("dataset.batch_size", description, f"at most {num_samples}", "dataset.drop_last=false")

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range; subclasses add missing files."""
        yield from check_loading(config, cls.channels)
        yield from check_validation_size(config, cls.num_train, cls.title)


def warn_of_missing_classes(splits: Mapping[str, NDArray[np.int64]], class_names: Sequence[str]) -> None:
    """Log one line for each split that has no image of some classes, given the labels ``[n]`` of each split."""
    for split, labels in splits.items():
        present = set(np.unique(labels).tolist())
        missing = [name for label, name in enumerate(class_names) if label not in present]
        if missing:
            listed = ", ".join(missing[:10]) + (f", … {len(missing) - 10} more" if len(missing) > 10 else "")
            log.warning("the %s split has no image of %d of %d classes: %s", split, len(missing), len(class_names), listed)


def _consecutive(indices: NDArray[np.int64]) -> Selection:
    """Return a slice if the indices are consecutive, which saves a copy of the images."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first + 1 == len(indices) else indices
