"""Splits whose images live on the device: index gathers, batched augmentation, no work per image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from altprop.data.augmentation import Augmentation, crop_and_flip, draw, pad
from altprop.data.base import Batch, LoadContext
from altprop.data.normalization import Normalization
from altprop.data.order import epoch_order, evaluation_slices, training_slices

FLOAT_CACHE_BYTES = 512 * 2**20
"""Unaugmented sets that take no more than this as float32 are normalized once, on the CPU, where every pass over memory shows."""


class PlainSplit:
    """Images in file order without augmentation, for evaluation.

    Mini-batches may be views of the stored images: do not write into them.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, batch_size: int, normalization: Normalization | None, context: LoadContext
    ) -> None:
        """``images`` ``[n, channels, height, width]``: uint8, or float32 already normalized where ``normalization`` is None."""
        self.num_samples = len(targets)
        self.batch_size = batch_size
        self.images, self.targets = images, targets
        self.normalization = normalization
        self.memory_format = _memory_format(context)
        self.slices = evaluation_slices(self.num_samples, batch_size, context.rank, context.world_size)

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The mini-batches from number ``start`` on; every epoch is the same."""
        for part in self.slices[start:]:
            images = self.images[part]
            if self.normalization is not None:
                images = self.normalization(images)
            yield images.contiguous(memory_format=self.memory_format), self.targets[part]


class ShuffledSplit:
    """Training images, in a new order every epoch, augmented anew.

    Order and draws of an epoch are made at its start on the CPU, from (seed, epoch) alone, and brought to the device in one go.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        batch_size: int,
        drop_last: bool,
        normalization: Normalization | None,
        augmentation: Augmentation,
        context: LoadContext,
    ) -> None:
        """``images`` as in :class:`PlainSplit`; padded already where ``augmentation`` asks for padding."""
        self.batch_size = batch_size
        self.images, self.targets = images, targets
        self.normalization, self.augmentation = normalization, augmentation
        self.height, self.width = (size - 2 * augmentation.padding for size in images.shape[-2:])
        self.seed, self.device = context.seed, context.device
        self.memory_format = _memory_format(context)
        self.slices = training_slices(len(targets), batch_size, drop_last, context.rank, context.world_size)
        self.num_samples = sum(part.stop - part.start for part in self.slices) * context.world_size

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The mini-batches of ``epoch`` from number ``start`` on, the same as in an uninterrupted pass."""
        order = epoch_order(len(self.targets), self.seed, epoch).to(self.device)
        targets = self.targets.index_select(0, order)
        plain = not self.augmentation.active
        draws = None if plain else draw(self.augmentation, len(self.targets), self.seed, epoch).to(self.device)
        for part in self.slices[start:]:
            index = order[part]
            if draws is None:
                images = self.images.index_select(0, index)
            else:
                images = crop_and_flip(self.images, index, draws[part], self.height, self.width)
            if self.normalization is not None:
                images = self.normalization(images)
            yield images.contiguous(memory_format=self.memory_format), targets[part]


def device_splits(
    images: Tensor,
    targets: Tensor,
    *,
    batch_size: int,
    eval_batch_size: int,
    drop_last: bool,
    normalization: Normalization,
    augmentation: Augmentation,
    context: LoadContext,
) -> tuple[ShuffledSplit, PlainSplit]:
    """The training split and the same images without augmentation; both share one copy of ``images`` (uint8, on the device)."""
    plain, transform = _prepare(images, normalization, keep_bytes=augmentation.active)
    padding = augmentation.padding
    if padding:
        padded = pad(plain, padding, augmentation.padding_mode)
        plain = padded[..., padding:-padding, padding:-padding]
    train = ShuffledSplit(padded if padding else plain, targets, batch_size, drop_last, transform, augmentation, context)
    return train, PlainSplit(plain, targets, eval_batch_size, transform, context)


def evaluation_split(
    images: Tensor, targets: Tensor, batch_size: int, normalization: Normalization, context: LoadContext
) -> PlainSplit:
    """A validation or test split of ``images`` (uint8, on the device)."""
    stored, transform = _prepare(images, normalization, keep_bytes=False)
    return PlainSplit(stored, targets, batch_size, transform, context)


def _prepare(images: Tensor, normalization: Normalization, keep_bytes: bool) -> tuple[Tensor, Normalization | None]:
    """The images as they are kept, and what is left to be done to a mini-batch."""
    if keep_bytes or images.device.type != "cpu" or images.numel() * 4 > FLOAT_CACHE_BYTES:
        return images, normalization
    # A few images at a time stay in the processor's cache, which halves the time.
    return torch.cat([normalization(part) for part in images.split(256)]), None


def _memory_format(context: LoadContext) -> torch.memory_format:
    return torch.channels_last if context.channels_last else torch.contiguous_format
