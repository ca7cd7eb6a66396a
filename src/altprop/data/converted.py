"""Splits that deliver their images in another floating-point type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from altprop.data.base import Batch, Data, Split


class ConvertedSplit:
    """``split`` with inputs in ``dtype``; everything else is that of ``split``."""

    def __init__(self, split: Split, dtype: torch.dtype) -> None:
        self.split = split
        self.dtype = dtype
        self.num_samples = split.num_samples
        self.batch_size = split.batch_size

    def __len__(self) -> int:
        return len(self.split)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of ``epoch`` from number ``start`` on, as :meth:`.Split.batches` does."""
        for inputs, targets in self.split.batches(epoch, start):
            yield inputs.to(self.dtype), targets


def converted(data: Data, dtype: torch.dtype) -> Data:
    """``data`` with the inputs of all splits in ``dtype``."""
    return replace(
        data,
        train=ConvertedSplit(data.train, dtype),
        train_plain=ConvertedSplit(data.train_plain, dtype),
        validation=None if data.validation is None else ConvertedSplit(data.validation, dtype),
        test=ConvertedSplit(data.test, dtype),
    )
