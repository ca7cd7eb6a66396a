"""Data sets small enough to live on the device whole: what they have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, LoadContext
from altprop.data.checks import check_loading, check_validation_size
from altprop.data.device_split import PlainSplit, device_splits, evaluation_split
from altprop.data.normalisation import Normalisation
from altprop.data.validation import Validation
from altprop.problems import ConfigError, Problem

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Images ``[n, channels, height, width]`` uint8 and labels ``[n]`` int64."""

    pixels: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> Images:
        return Images(self.pixels[part], self.labels[part])


@dataclass(frozen=True)
class RawData:
    """The two official parts of a data set as they lie in its files."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class InMemory(ABC):
    """A data set that is read whole and kept on the device.

    ``mean`` and ``std`` are in units of [0, 1], one for all channels or one each. ``limit_train`` and ``limit_test`` keep the
    first so many images, ``limit_train`` after the validation images were taken out.
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
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)
    limit_train: int | None = None
    limit_test: int | None = None

    @abstractmethod
    def read(self, root: Path) -> RawData:
        """The images and labels of both parts; ``root`` is ``paths.data``.

        :raises DataError: where a file is missing, torn or of another format.
        """

    def load(self, context: LoadContext) -> Data:
        """Read the files, split, and bring everything to the device.

        :raises ConfigError: where files or settings do not fit together.
        """
        raw = self.read(context.root)
        train, validation = self._hold_out(raw.train, context.root)
        train, test = train[: self.limit_train], raw.test[: self.limit_test]
        self._check_fit(train, context)
        normalisation = Normalisation.of(self.mean, self.std, context.device)
        train_split, train_plain = device_splits(
            *_to_device(train, context),
            batch_size=self.batch_size,
            eval_batch_size=self.eval_batch_size,
            drop_last=self.drop_last,
            normalisation=normalisation,
            augmentation=self.augmentation,
            context=context,
        )

        def evaluated(images: Images) -> PlainSplit:
            return evaluation_split(*_to_device(images, context), self.eval_batch_size, normalisation, context)

        channels, height, width = train.pixels.shape[1:]
        return Data(
            train=train_split,
            train_plain=train_plain,
            validation=None if validation is None else evaluated(validation),
            test=evaluated(test),
            input_shape=(channels, height, width),
            num_classes=len(raw.class_names),
            class_names=raw.class_names,
        )

    def _hold_out(self, images: Images, root: Path) -> tuple[Images, Images | None]:
        if self.validation.file is None and self.validation.count(len(images)) == 0:
            return images, None
        if self.validation.file is None and self.validation.count(len(images)) >= len(images):
            given, allowed = f"{self.validation.size:g}", f"less than the {len(images):,} training images of {self.title}"
            raise ConfigError([Problem("dataset.validation.size", given, allowed)])
        train, validation = self.validation.split(images.labels, root)
        return images[_as_slice(train)], images[_as_slice(validation)]

    def _check_fit(self, train: Images, context: LoadContext) -> None:
        """Problems that show only once the images are there."""
        problems = []
        channels, height, width = train.pixels.shape[1:]
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                allowed = f"one value, or one for each of the {channels} channels"
                problems.append(Problem(f"dataset.{key}", f"{len(values)} values", allowed))
        if self.augmentation.padding_mode == "reflect" and self.augmentation.padding >= min(height, width):
            given = f"{self.augmentation.padding} mirrored pixels"
            allowed = f"less than the {min(height, width)} pixels of an image"
            problems.append(Problem("dataset.augmentation.padding", given, allowed))
        if self.batch_size % context.world_size:
            given = f"{self.batch_size} on {context.world_size} processes"
            problems.append(Problem("dataset.batch_size", given, f"a multiple of {context.world_size}"))
        if self.drop_last and len(train) < self.batch_size:
            given = f"{self.batch_size} with drop_last and {len(train)} training images"
            problems.append(Problem("dataset.batch_size", given, f"at most {len(train)}", "dataset.drop_last=false"))
        if problems:
            raise ConfigError(problems)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range; subclasses add missing files."""
        yield from check_loading(config, cls.channels)
        yield from check_validation_size(config, cls.num_train, cls.title)


def _as_slice(indices: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """A slice where the indices are consecutive, which spares a copy of the images."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first + 1 == len(indices) else indices


def _to_device(images: Images, context: LoadContext) -> tuple[Tensor, Tensor]:
    # Arrays read from files may be read-only, which torch cannot express: those are copied, others are not.
    pixels = torch.from_numpy(np.require(images.pixels, requirements=["C", "W"]))
    labels = torch.from_numpy(np.require(images.labels, dtype=np.int64, requirements=["C", "W"]))
    return pixels.to(context.device), labels.to(context.device)
