"""Splits whose images stay on the device: gathers and batched augmentation, no work per image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from altprop.data.augmentation import Augmentation, crop_and_flip, draw, pad
from altprop.data.base import Batch, LoadContext
from altprop.data.normalization import Normalization
from altprop.data.order import epoch_order, evaluation_slices, training_slices

FLOAT_CACHE_BYTES = 512 * 2**20
"""Unaugmented sets up to this size as float32 are normalized once on the CPU, where each pass over memory is costly."""


class PlainSplit:
    """Images in file order without augmentation, for evaluation.

    Mini-batches may be views of the stored images; do not write to them.

    Args:
        images: ``[n, channels, height, width]``, uint8; or float32 and already normalized if ``normalization`` is None.
        targets: ``[n]``.
        batch_size: Images in a mini-batch, all ranks together.
        normalization: Applied to each mini-batch, or None.
        context: Memory format and ranks.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, batch_size: int, normalization: Normalization | None, context: LoadContext
    ) -> None:
        self.num_samples = len(targets)
        self.batch_size = batch_size
        self.images, self.targets = images, targets
        self.normalization = normalization
        self.memory_format = _memory_format(context)
        self.slices = evaluation_slices(self.num_samples, batch_size, context.rank, context.world_size)

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches, beginning with number ``start``; every epoch is the same."""
        for share in self.slices[start:]:
            images = self.images[share]
            if self.normalization is not None:
                images = self.normalization(images)
            yield images.contiguous(memory_format=self.memory_format), self.targets[share]


class ShuffledSplit:
    """Training images, shuffled and augmented differently in every epoch.

    The order and draws of an epoch are made on the CPU at its start, from (seed, epoch) only, and copied to the device at once.

    Args:
        images: As in :class:`PlainSplit`; already padded if ``augmentation`` asks for padding.
        targets: ``[n]``.
        batch_size: Images in a mini-batch, all ranks together.
        drop_last: Whether to skip the last, smaller mini-batch of an epoch.
        normalization: Applied to each mini-batch, or None.
        augmentation: Applied to each mini-batch.
        context: Seed, device, memory format and ranks.
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
        self.batch_size = batch_size
        self.images, self.targets = images, targets
        self.normalization, self.augmentation = normalization, augmentation
        self.height, self.width = (size - 2 * augmentation.padding for size in images.shape[-2:])
        self.seed, self.device = context.seed, context.device
        self.memory_format = _memory_format(context)
        self.slices = training_slices(len(targets), batch_size, drop_last, context.rank, context.world_size)
        self.num_samples = sum(share.stop - share.start for share in self.slices) * context.world_size

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of ``epoch``, beginning with number ``start``, the same as in an uninterrupted pass."""
        order = epoch_order(len(self.targets), self.seed, epoch).to(self.device)
        targets = self.targets.index_select(0, order)
        plain = not self.augmentation.active
        draws = None if plain else draw(self.augmentation, len(self.targets), self.seed, epoch).to(self.device)
        for share in self.slices[start:]:
            index = order[share]
            if draws is None:
                images = self.images.index_select(0, index)
            else:
                images = crop_and_flip(self.images, index, draws[share], self.height, self.width)
            if self.normalization is not None:
                images = self.normalization(images)
            yield images.contiguous(memory_format=self.memory_format), targets[share]


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
    """Return the training split and the same images without augmentation; both share ``images`` (uint8, on the device)."""
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
    """Return a validation or test split of ``images`` (uint8, on the device)."""
    stored, transform = _prepare(images, normalization, keep_bytes=False)
    return PlainSplit(stored, targets, batch_size, transform, context)


def _prepare(images: Tensor, normalization: Normalization, keep_bytes: bool) -> tuple[Tensor, Normalization | None]:
    """Return the images as they are stored, and the normalization to apply to each mini-batch, or None if it is done already."""
    if keep_bytes or images.device.type != "cpu" or images.numel() * 4 > FLOAT_CACHE_BYTES:
        return images, normalization
    # 256 images at a time fit into the processor's cache, which halves the time.
    return torch.cat([normalization(chunk) for chunk in images.split(256)]), None


def _memory_format(context: LoadContext) -> torch.memory_format:
    return torch.channels_last if context.channels_last else torch.contiguous_format
