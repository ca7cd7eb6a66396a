"""Images of gratings in four directions, drawn on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from altprop.data.sets.in_memory import Images, InMemory, RawData

CLASSES = ("horizontal", "vertical", "rising", "falling")


@dataclass(frozen=True, kw_only=True)
class Gratings(InMemory):
    """Gray 14x14 images of noisy stripes, as in studies of vision; the class is their direction.

    Args:
        train_size: Number of training images.
        test_size: Number of test images.
    """

    title: ClassVar[str] = "gratings"
    channels: ClassVar[int | None] = 1

    train_size: int = 1000
    test_size: int = 400

    def read(self, root: Path) -> RawData:
        """Draw both splits. A data set with files would read them below ``root``, which is ``paths.data``."""
        return RawData(draw(self.train_size, seed=1), draw(self.test_size, seed=2), CLASSES)


def draw(count: int, seed: int) -> Images:
    """``count`` images, ``[count, 1, 14, 14]`` uint8, with labels ``[count]``."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    row, column = np.mgrid[:14, :14]
    position = np.stack([row, column, row + column, row - column])[labels]
    phase, noise = random.uniform(0, 2 * np.pi, (count, 1, 1)), random.uniform(0, 0.5, (count, 14, 14))
    wave = 0.5 + 0.5 * np.sin(position * np.pi / 3.5 + phase)
    return Images((255 * (0.5 * wave + noise)).astype(np.uint8)[:, None], labels)
