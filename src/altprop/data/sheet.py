"""A contact sheet of training images, plain and augmented, to look at before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from altprop.data.base import Data, Split
from altprop.fonts import font_file, readable_names

CLASSES = 10
PLAIN, AUGMENTED = 3, 9
"""Images of each class: on the left as in evaluation, on the right as in training."""
TILE = 64
FONT_SIZE = 10
GAP, MARGIN = 4, 110
MAX_BATCHES = 200
"""Mini-batches searched for images of every class."""


def draw_sheet(data: Data, mean: Sequence[float], std: Sequence[float], path: Path) -> Path:
    """Write a PNG with one row for each of the first ten classes, and return ``path``."""
    names = [name[:17] for name in readable_names(data.class_names[:CLASSES])]
    plain = _collect(data.train_plain, len(names), PLAIN)
    augmented = _collect(data.train, len(names), AUGMENTED)
    pitch = TILE + GAP
    width = MARGIN + (PLAIN + AUGMENTED) * pitch + 3 * GAP
    sheet = Image.new("RGB", (width, len(names) * pitch + GAP), "white")
    text = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        top = GAP + row * pitch
        file = font_file(name)
        font = None if file is None else ImageFont.truetype(str(file), FONT_SIZE)
        text.text((GAP, top + TILE // 2 - 6), name if font is not None else _ascii(name), fill="black", font=font)
        for column, image in enumerate([*plain[row], *augmented[row]]):
            left = MARGIN + column * pitch + (3 * GAP if column >= len(plain[row]) else 0)
            sheet.paste(_tile(image, mean, std), (left, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _ascii(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()


def _collect(split: Split, classes: int, count: int) -> list[list[Tensor]]:
    """Return the first ``count`` images of each class that ``split`` delivers."""
    images: list[list[Tensor]] = [[] for _ in range(classes)]
    for number, (inputs, targets) in enumerate(split.batches()):
        for image, label in zip(inputs, targets.tolist()):
            if label < classes and len(images[label]) < count:
                images[label].append(image)
        if number >= MAX_BATCHES or all(len(of_class) == count for of_class in images):
            break
    return images


def _tile(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Turn a normalized image ``[channels, height, width]`` back into pixels, with a longer side of ``TILE`` pixels."""
    shift, scale = (torch.tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    pixels: NDArray[np.uint8] = ((image.cpu() * scale + shift).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    zoom = TILE / max(picture.size)
    resampling = Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.BILINEAR
    return picture.resize((max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom))), resampling)
