"""Random crops with padding and horizontal flips of whole mini-batches on the device, drawn per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from altprop.problems import Problem
from altprop.seeding import derive_seed

PaddingMode = Literal["zeros", "reflect", "edge"]
PADDING_MODES = ("zeros", "reflect", "edge")


@dataclass(frozen=True)
class Augmentation:
    """Random crop after padding by ``padding`` pixels on each side, and a horizontal flip with probability ``flip``.

    ``padding_mode`` says what lies outside the image: ``zeros`` is black before normalization (``-mean / std`` after it),
    ``reflect`` mirrors without repeating the border pixel, ``edge`` repeats the border pixel. Crop offsets are uniform over the
    ``2 * padding + 1`` positions of each axis. Whether the flip comes before or after the crop makes no difference to the
    distribution, because offsets and paddings are symmetric.
    """

    padding: int = 0
    padding_mode: PaddingMode = "zeros"
    flip: float = 0.0

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.padding > 0 or self.flip > 0

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range."""
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
    """What was drawn for each image of an epoch: ``top`` and ``left`` ``[samples]`` int64, ``flip`` ``[samples]`` bool."""

    top: Tensor
    left: Tensor
    flip: Tensor

    def to(self, device: torch.device) -> Draws:
        """The same draws on ``device``."""
        return Draws(self.top.to(device), self.left.to(device), self.flip.to(device))

    def __getitem__(self, part: slice) -> Draws:
        return Draws(self.top[part], self.left[part], self.flip[part])


def draw(augmentation: Augmentation, num_samples: int, seed: int, epoch: int) -> Draws:
    """The draws of a whole epoch, one per place in its order, on the CPU: the same on every device and rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment", epoch))
    offsets = torch.randint(0, 2 * augmentation.padding + 1, (2, num_samples), generator=generator)
    flip = torch.rand(num_samples, generator=generator) < augmentation.flip
    return Draws(offsets[0], offsets[1], flip)


def pad(images: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    """Images ``[n, channels, height, width]`` of any type, ``padding`` pixels larger on each side.

    :raises ValueError: where an image is too small to be mirrored so far.
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
    """For each place along a padded axis the place it is copied from."""
    place = torch.arange(-padding, size + padding, device=device)
    if mode == "edge":
        return place.clamp(0, size - 1)
    return (size - 1 - (size - 1 - place.abs()).abs()).contiguous()


def crop_and_flip(padded: Tensor, index: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """The images ``padded[index]`` cropped at each one's offset, then flipped where drawn.

    ``padded`` is ``[n, channels, height + 2p, width + 2p]``, ``index`` and the draws ``[batch]``; gives
    ``[batch, channels, height, width]``.
    """
    padded_width = padded.shape[-1]
    rows = draws.top[:, None] + torch.arange(height, device=padded.device)
    columns = torch.arange(width, device=padded.device)
    columns = draws.left[:, None] + torch.where(draws.flip[:, None], width - 1 - columns, columns)
    places = (rows[:, :, None] * padded_width + columns[:, None, :]).flatten(1)[:, None]
    chosen = padded.index_select(0, index).flatten(2)
    return chosen.gather(2, places.expand(-1, padded.shape[1], -1)).unflatten(2, (height, width))
