"""Color images of ten shapes that the project draws itself: convolutional nets can be tried without a download."""

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
from altprop.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Shapes(InMemory):
    """Images of 32x32 pixels, in color, of ten classes; shape, size, turn, place, color, texture, clutter and noise vary.

    ``train_size`` and ``test_size`` images are drawn from ``drawing_seed``, which is no part of the run's seed: every run sees
    the same images. Classes take turns in the file order.
    """

    title: ClassVar[str] = "shapes"
    channels: ClassVar[int | None] = 3

    train_size: int = 10_000
    test_size: int = 2_000
    drawing_seed: int = 0

    def read(self, root: Path) -> RawData:
        """Draw both parts; ``root`` is not looked at."""
        return RawData(
            drawn("train", self.train_size, self.drawing_seed), drawn("test", self.test_size, self.drawing_seed), CLASS_NAMES
        )

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Values out of range."""
        yield from super().check(config, root)
        for key in ("train_size", "test_size"):
            value = config.get(key)
            if isinstance(value, int) and value < 1:
                yield Problem(f"dataset.{key}", str(value), "a number of images from 1 on")
        size = config.get("train_size")
        yield from check_validation_size(config, size if isinstance(size, int) else None, cls.title)


@functools.lru_cache(maxsize=4)
def drawn(part: str, count: int, seed: int) -> Images:
    """The first ``count`` images of one part. Callers share the arrays, so they are read-only."""
    chunks = []
    for number, start in enumerate(range(0, count, CHUNK)):
        generator = torch.Generator().manual_seed(derive_seed(seed, "shapes", part, number))
        chunks.append(draw_chunk(CHUNK, generator)[: count - start].numpy())
    pixels, labels = np.concatenate(chunks), np.arange(count) % len(CLASS_NAMES)
    pixels.flags.writeable = labels.flags.writeable = False
    return Images(pixels, labels)
