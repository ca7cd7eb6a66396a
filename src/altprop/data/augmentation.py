"""Random crops and horizontal flips of whole mini-batches on the device, drawn for each image separately."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from altprop.problems import Problem
from altprop.ranges import Padding, Probability
from altprop.seeding import derive_seed

PaddingMode = Literal["zeros", "reflect", "edge"]
PADDING_MODES = ("zeros", "reflect", "edge")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random crops of padded images, and random horizontal flips.

    Crop offsets are uniform over the ``2 * padding + 1`` positions of each axis. Flipping before or after the crop gives the same
    distribution, because offsets and padding are symmetric.

    Args:
        padding: Pixels added on each side before the crop, which restores the original size. 0 disables cropping.
        padding_mode: How the added pixels are filled. ``zeros`` is black before normalization (``-mean / std`` after it),
            ``reflect`` mirrors the image without repeating the border pixel, ``edge`` repeats the border pixel.
        flip: Probability of a horizontal flip.
    """

    padding: Padding = 0
    padding_mode: PaddingMode = "zeros"
    flip: Probability = 0.0

    @property
    def active(self) -> bool:
        """Whether images are changed at all."""
        return self.padding > 0 or self.flip > 0

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range."""
        padding, flip = config.get("padding", 0), config.get("flip", 0.0)
        if isinstance(padding, int) and padding < 0:
            yield Problem("dataset.augmentation.padding", str(padding), "a number of pixels, 0 for no crop")
        if isinstance(flip, (int, float)) and not 0 <= flip <= 1:
            yield Problem("dataset.augmentation.flip", str(flip), "a probability between 0 and 1")
        mode = config.get("padding_mode", "zeros")
        if mode not in PADDING_MODES:
            yield Problem("dataset.augmentation.padding_mode", str(mode), f"one of {', '.join(PADDING_MODES)}")


@dataclass(frozen=True)
class Draws:
    """Crop offsets and flips of an epoch: ``top`` and ``left`` ``[samples]`` int64, ``flip`` ``[samples]`` bool."""

    top: Tensor
    left: Tensor
    flip: Tensor

    def to(self, device: torch.device) -> Draws:
        """Return the same draws on ``device``."""
        return Draws(self.top.to(device), self.left.to(device), self.flip.to(device))

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(self.top[rows], self.left[rows], self.flip[rows])


def draw(augmentation: Augmentation, num_samples: int, seed: int, epoch: int) -> Draws:
    """Draw crops and flips for a whole epoch, one per position in its order. Made on the CPU, so all devices and ranks agree."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment", epoch))
    offsets = torch.randint(0, 2 * augmentation.padding + 1, (2, num_samples), generator=generator)
    flip = torch.rand(num_samples, generator=generator) < augmentation.flip
    return Draws(offsets[0], offsets[1], flip)


def pad(images: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    """Pad images ``[n, channels, height, width]`` of any dtype by ``padding`` pixels on each side.

    Raises ValueError if an image is too small to be mirrored that far.
    """
    if padding == 0:
        return images
    height, width = images.shape[-2:]
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(f"an image of {height}x{width} pixels cannot be padded by {padding} mirrored pixels")
    if mode == "zeros":
        padded = images.new_zeros((*images.shape[:-2], height + 2 * padding, width + 2 * padding))
        padded[..., padding : padding + height, padding : padding + width] = images
        return padded
    rows, columns = (_source_index(size, padding, mode, images.device) for size in (height, width))
    return images.index_select(-2, rows).index_select(-1, columns)


def _source_index(size: int, padding: int, mode: PaddingMode, device: torch.device) -> Tensor:
    """Return, for each position along a padded axis, the source position it is copied from."""
    position = torch.arange(-padding, size + padding, device=device)
    if mode == "edge":
        return position.clamp(0, size - 1)
    return (size - 1 - (size - 1 - position.abs()).abs()).contiguous()


def crop_and_flip(padded: Tensor, index: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """Crop each image of ``padded[index]`` at its own offset, then flip those drawn to be flipped.

    ``padded`` is ``[n, channels, height + 2p, width + 2p]``, ``index`` and the draws are ``[batch]``. Returns
    ``[batch, channels, height, width]``.
    """
    padded_width = padded.shape[-1]
    rows = draws.top[:, None] + torch.arange(height, device=padded.device)
    columns = torch.arange(width, device=padded.device)
    columns = draws.left[:, None] + torch.where(draws.flip[:, None], width - 1 - columns, columns)
    pixels = (rows[:, :, None] * padded_width + columns[:, None, :]).flatten(1)[:, None]
    batch = padded.index_select(0, index).flatten(2)
    return batch.gather(2, pixels.expand(-1, padded.shape[1], -1)).unflatten(2, (height, width))
