"""The base class of data sets small enough to be kept on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, Labels, LoadContext, Pixels
from altprop.data.loading.device_split import PlainSplit, device_splits, evaluation_split
from altprop.data.normalization import Normalization
from altprop.data.sets.image_set import ImageSet, Selection, warn_of_missing_classes
from altprop.problems import ConfigError, Problem


@dataclass(frozen=True)
class Images:
    """Images ``[n, channels, height, width]`` uint8 and labels ``[n]`` int64."""

    pixels: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, selection: Selection) -> Images:
        return Images(self.pixels[selection], self.labels[selection])


@dataclass(frozen=True)
class RawData:
    """The official training and test images of a data set, in file order."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class InMemory(ImageSet):
    """A data set that is read completely and kept on the device.

    Args:
        augmentation: Augmentation of the training images.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)

    @abstractmethod
    def read(self, root: Path) -> RawData:
        """Read the images and labels of both splits. ``root`` is ``paths.data``.

        Raises DataError if a file is missing, truncated or in another format.
        """

    def load(self, context: LoadContext) -> Data:
        """Read the files, split off validation images, and copy everything to the device."""
        return on_device(self, self.read(context.root), self.augmentation, context)


def on_device(image_set: ImageSet, raw: RawData, augmentation: Augmentation, context: LoadContext) -> Data:
    """Return the splits of ``raw`` on the device. Raises ConfigError if settings do not fit the images."""
    training, validation = image_set.divide(raw.train.labels, context.root)
    train, test = raw.train[training], raw.test[image_set.limited(raw.test.labels, image_set.limit_test)]
    channels, height, width = train.pixels.shape[1:]
    problems = [*image_set.mismatches(len(train), channels, context), *_padding_mismatches(augmentation, min(height, width))]
    if problems:
        raise ConfigError(problems)
    labels = {"training": train.labels, "test": test.labels}
    if validation is not None:
        labels["validation"] = raw.train[validation].labels
    warn_of_missing_classes(labels, raw.class_names)
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

    def evaluation(images: Images) -> PlainSplit:
        return evaluation_split(*_to_device(images, context), image_set.eval_batch_size, normalization, context)

    return Data(
        train=train_split,
        train_plain=train_plain,
        validation=None if validation is None else evaluation(raw.train[validation]),
        test=evaluation(test),
        input_shape=(channels, height, width),
        num_classes=len(raw.class_names),
        class_names=raw.class_names,
    )


def _padding_mismatches(augmentation: Augmentation, size: int) -> Iterator[Problem]:
    padding = augmentation.padding
    if augmentation.padding_mode == "reflect" and padding >= size:
        yield Problem("dataset.augmentation.padding", f"{padding} mirrored pixels", f"fewer than the {size} pixels of an image")


def _to_device(images: Images, context: LoadContext) -> tuple[Tensor, Tensor]:
    # Arrays read from files may be read-only, which torch does not support. Only those are copied.
    pixels = torch.from_numpy(np.require(images.pixels, requirements=["C", "W"]))
    labels = torch.from_numpy(np.require(images.labels, dtype=np.int64, requirements=["C", "W"]))
    return pixels.to(context.device), labels.to(context.device)
