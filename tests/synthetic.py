"""Noise in the shape of any data set, for tests that want one step and no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from altprop.data.base import Batch, Data, LoadContext


@dataclass(frozen=True)
class Noise:
    """One mini-batch of ``batch_size`` images per epoch and split."""

    shape: tuple[int, int, int]
    num_classes: int
    batch_size: int = 2

    @property
    def num_samples(self) -> int:
        return self.batch_size

    def __len__(self) -> int:
        return 1

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        if start == 0:
            yield (
                torch.randn(self.batch_size, *self.shape, generator=generator),
                torch.randint(self.num_classes, (self.batch_size,), generator=generator),
            )

    def load(self, context: LoadContext) -> Data:
        names = tuple(str(number) for number in range(self.num_classes))
        return Data(self, self, None, self, self.shape, self.num_classes, names)
