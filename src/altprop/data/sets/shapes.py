"""Color images of ten shapes drawn by altprop, for trying convolutional networks without a download."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from altprop.data.checks import check_validation_size
from altprop.data.sets.drawing import CHUNK, CLASS_NAMES, draw_chunk
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.problems import Problem
from altprop.ranges import PositiveInt, Seed
from altprop.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Shapes(InMemory):
    """32x32 color images of ten classes. Size, rotation, position, color, texture, clutter and noise vary.

    Classes alternate in the file order.

    Args:
        train_size: Number of training images.
        test_size: Number of test images.
        drawing_seed: Seed of the images; independent of the run's seed, so that every run sees the same images.
    """

    title: ClassVar[str] = "shapes"
    channels: ClassVar[int | None] = 3

    train_size: PositiveInt = 10_000
    test_size: PositiveInt = 2_000
    drawing_seed: Seed = 0

    def read(self, root: Path) -> RawData:
        """Draw both splits; ``root`` is not used."""
        train = draw_images("train", self.train_size, self.drawing_seed)
        test = draw_images("test", self.test_size, self.drawing_seed)
        return RawData(train, test, CLASS_NAMES)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range."""
        yield from super().check(config, root)
        for key in ("train_size", "test_size"):
            value = config.get(key)
            if isinstance(value, int) and value < 1:
                yield Problem(f"dataset.{key}", str(value), "a number of images, 1 or more")
        size = config.get("train_size")
        yield from check_validation_size(config, size if isinstance(size, int) else None, cls.title)


@functools.lru_cache(maxsize=4)
def draw_images(split: str, count: int, seed: int) -> Images:
    """Draw the first ``count`` images of ``split``. Callers share the arrays, so they are read-only."""
    chunks = []
    for number, start in enumerate(range(0, count, CHUNK)):
        generator = torch.Generator().manual_seed(derive_seed(seed, "shapes", split, number))
        chunks.append(draw_chunk(CHUNK, generator)[: count - start].numpy())
    pixels, labels = np.concatenate(chunks), np.arange(count) % len(CLASS_NAMES)
    pixels.flags.writeable = labels.flags.writeable = False
    return Images(pixels, labels)
