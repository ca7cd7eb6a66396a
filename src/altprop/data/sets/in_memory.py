"""Data sets small enough to live on the device whole: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, LoadContext
from altprop.data.loading.device_split import PlainSplit, device_splits, evaluation_split
from altprop.data.normalization import Normalization
from altprop.data.sets.image_set import ImageSet, Selection
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

    def __getitem__(self, part: Selection) -> Images:
        return Images(self.pixels[part], self.labels[part])


@dataclass(frozen=True)
class RawData:
    """The two official parts of a data set as they lie in its files."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class InMemory(ImageSet):
    """A data set that is read whole and kept on the device."""

    augmentation: Augmentation = field(default_factory=Augmentation)

    @abstractmethod
    def read(self, root: Path) -> RawData:
        """The images and labels of both parts; ``root`` is ``paths.data``.

        :raises DataError: where a file is missing, torn or of another format.
        """

    def load(self, context: LoadContext) -> Data:
        """Read the files, divide the training images, and bring everything to the device."""
        return place(self, self.read(context.root), self.augmentation, context)


def place(image_set: ImageSet, raw: RawData, augmentation: Augmentation, context: LoadContext) -> Data:
    """The splits of ``raw`` on the device.

    :raises ConfigError: where settings do not fit the images.
    """
    chosen, held_out = image_set.divide(raw.train.labels, context.root)
    train, test = raw.train[chosen], raw.test[: image_set.limit_test]
    channels, height, width = train.pixels.shape[1:]
    problems = [*image_set.misfits(len(train), channels, context), *_padding_misfits(augmentation, min(height, width))]
    if problems:
        raise ConfigError(problems)
    normalization = Normalization.of(image_set.mean, image_set.std, context.device)
    train_split, train_plain = device_splits(
        *_to_device(train, context),
        batch_size=image_set.batch_size,
        eval_batch_size=image_set.eval_batch_size,
        drop_last=image_set.drop_last,
        normalization=normalization,
        augmentation=augmentation,
        context=context,
    )

    def evaluated(images: Images) -> PlainSplit:
        return evaluation_split(*_to_device(images, context), image_set.eval_batch_size, normalization, context)

    return Data(
        train=train_split,
        train_plain=train_plain,
        validation=None if held_out is None else evaluated(raw.train[held_out]),
        test=evaluated(test),
        input_shape=(channels, height, width),
        num_classes=len(raw.class_names),
        class_names=raw.class_names,
    )


def _padding_misfits(augmentation: Augmentation, size: int) -> Iterator[Problem]:
    padding = augmentation.padding
    if augmentation.padding_mode == "reflect" and padding >= size:
        yield Problem("dataset.augmentation.padding", f"{padding} mirrored pixels", f"less than the {size} pixels of an image")


def _to_device(images: Images, context: LoadContext) -> tuple[Tensor, Tensor]:
    # Arrays read from files may be read-only, which torch cannot express: those are copied, others are not.
    pixels = torch.from_numpy(np.require(images.pixels, requirements=["C", "W"]))
    labels = torch.from_numpy(np.require(images.labels, dtype=np.int64, requirements=["C", "W"]))
    return pixels.to(context.device), labels.to(context.device)
