"""What training and evaluation see of a data set: splits that yield device tensors in an order fixed by seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Inputs ``[batch, channels, height, width]`` (float, on the device) and integer targets ``[batch]``."""


class Split(Protocol):
    """One part of a data set, ready to be iterated."""

    num_samples: int
    """Number of samples that one pass delivers (all ranks together)."""
    batch_size: int

    def __len__(self) -> int:
        """Mini-batches in one pass, on this rank."""

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The mini-batches of ``epoch`` from number ``start`` on.

        Order and augmentation are functions of (seed, epoch, batch number) alone: a pass that begins at ``start`` delivers
        exactly what an uninterrupted one would have delivered from there on.
        """


@dataclass(frozen=True)
class Data:
    """A loaded data set. ``train_plain`` holds the training images in file order without augmentation, for evaluation."""

    train: Split
    train_plain: Split
    validation: Split | None
    test: Split
    input_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class LoadContext:
    """Where and how a data set is loaded. ``root`` is ``paths.data``."""

    root: Path
    device: torch.device
    seed: int
    channels_last: bool = False
    rank: int = 0
    world_size: int = 1
