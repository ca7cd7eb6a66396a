"""A sheet of training images, plain and augmented, to look at before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from altprop.data.base import Data, Split

CLASSES = 10
PLAIN, AUGMENTED = 3, 9
"""Images of each class: on the left as they are in evaluation, on the right as they are trained on."""
TILE = 64
GAP, MARGIN = 4, 110
MOST_BATCHES = 200


def draw_sheet(data: Data, mean: Sequence[float], std: Sequence[float], path: Path) -> Path:
    """Write a PNG with one row for each of the first ten classes; gives ``path``."""
    names = data.class_names[:CLASSES]
    plain = _collect(data.train_plain, len(names), PLAIN)
    augmented = _collect(data.train, len(names), AUGMENTED)
    step = TILE + GAP
    width = MARGIN + (PLAIN + AUGMENTED) * step + 3 * GAP
    sheet = Image.new("RGB", (width, len(names) * step + GAP), "white")
    text = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        top = GAP + row * step
        text.text((GAP, top + TILE // 2 - 6), name[:17], fill="black")
        for column, image in enumerate([*plain[row], *augmented[row]]):
            left = MARGIN + column * step + (3 * GAP if column >= len(plain[row]) else 0)
            sheet.paste(_tile(image, mean, std), (left, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _collect(split: Split, classes: int, count: int) -> list[list[Tensor]]:
    """The first ``count`` images of each class that ``split`` delivers."""
    found: list[list[Tensor]] = [[] for _ in range(classes)]
    for number, (inputs, targets) in enumerate(split.batches()):
        for image, label in zip(inputs, targets.tolist()):
            if label < classes and len(found[label]) < count:
                found[label].append(image)
        if number >= MOST_BATCHES or all(len(images) == count for images in found):
            break
    return found


def _tile(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """A normalized image ``[channels, height, width]`` as it looks, its longer side ``TILE`` pixels long."""
    shift, scale = (torch.tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    pixels: NDArray[np.uint8] = ((image.cpu() * scale + shift).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    drawn = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    zoom = TILE / max(drawn.size)
    filtering = Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.BILINEAR
    return drawn.resize((max(1, round(drawn.width * zoom)), max(1, round(drawn.height * zoom))), filtering)
