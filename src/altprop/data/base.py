"""The interface of a loaded data set: splits that yield device tensors in an order determined by seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Inputs ``[batch, channels, height, width]`` (float, on the device) and integer targets ``[batch]``."""
Pixels = NDArray[np.uint8]
"""Images ``[n, channels, height, width]`` before normalization."""
Labels = NDArray[np.int64]
"""Class numbers ``[n]``."""


class Split(Protocol):
    """The training, validation or test images of a data set, as mini-batches."""

    num_samples: int
    """Samples delivered by one pass, all ranks together."""
    batch_size: int

    def __len__(self) -> int:
        """Return the number of mini-batches in one pass on this rank."""

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of ``epoch``, beginning with number ``start``.

        Order and augmentation depend on (seed, epoch, batch number) only: a pass that begins at ``start`` delivers exactly what
        an uninterrupted pass delivers from there on.
        """


@dataclass(frozen=True)
class Data:
    """A loaded data set. ``train_plain`` has the training images in file order without augmentation, for evaluation."""

    train: Split
    train_plain: Split
    validation: Split | None
    test: Split
    input_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class LoadContext:
    """Where and how to load a data set. ``root`` is ``paths.data``."""

    root: Path
    device: torch.device
    seed: int
    channels_last: bool = False
    rank: int = 0
    world_size: int = 1
