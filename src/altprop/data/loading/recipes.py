"""The standard crops of large images, drawn from a separate random stream for each image."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from altprop.data.errors import DataError
from altprop.data.files.folder import Facts, unconvertible
from altprop.problems import Problem
from altprop.ranges import ImageSize, Probability

Recipe = Literal["random_resized_crop", "random_crop", "centre_crop"]
RECIPES = ("random_resized_crop", "random_crop", "centre_crop")
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


@dataclass(frozen=True)
class Window:
    """The part of an image, in source pixels, that is scaled to the network's input size and then possibly flipped.

    ``isolated`` means that pixels outside the window do not influence the scaling, as if the image were cropped first.
    """

    left: float
    top: float
    width: float
    height: float
    flip: bool = False
    isolated: bool = False


def random_resized_window(width: int, height: int, stream: random.Random) -> Window:
    """Draw a window with 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3 (log-uniform).

    If ten draws do not fit into the image, returns the largest centered window with an allowed aspect ratio. This is the usual
    recipe of ImageNet training.
    """
    for _ in range(ATTEMPTS):
        area = width * height * stream.uniform(*AREA)
        aspect = math.exp(stream.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            top = stream.randint(0, height - down)
            return Window(stream.randint(0, width - across), top, across, down, isolated=True)
    across = min(width, round(height * ASPECT[1]))
    down = min(height, round(width / ASPECT[0]))
    return Window((width - across) // 2, (height - down) // 2, across, down, isolated=True)


def placed_window(width: int, height: int, size: int, resize: int | None, stream: random.Random | None) -> Window:
    """Return a window of ``size`` x ``size`` pixels after scaling the image's short side to ``resize`` (None: no scaling).

    Its position is drawn from ``stream``; if that is None, it is the center. Raises ValueError if the scaled image is smaller
    than the window.
    """
    scaled_width, scaled_height = width, height
    if resize is not None:
        short = min(width, height)
        scaled_width, scaled_height = (resize if side == short else int(resize * side / short) for side in (width, height))
    free_x, free_y = scaled_width - size, scaled_height - size
    if free_x < 0 or free_y < 0:
        raise ValueError(f"has {scaled_width}x{scaled_height} pixels, fewer than the crop's {size}x{size}")
    if stream is None:
        left, top = round(free_x / 2), round(free_y / 2)
    else:
        top, left = stream.randint(0, free_y), stream.randint(0, free_x)
    across, down = width / scaled_width, height / scaled_height
    return Window(left * across, top * down, size * across, size * down)


@dataclass(frozen=True)
class View:
    """What a network sees of an image: a recipe with its sizes, and the probability of a horizontal ``flip``."""

    recipe: Recipe
    size: ImageSize
    resize: ImageSize | None
    flip: Probability

    def window(self, width: int, height: int, stream: random.Random) -> Window:
        """Return the window of one image of ``width`` x ``height`` pixels. Raises ValueError if the image is too small."""
        if self.recipe == "random_resized_crop":
            window = random_resized_window(width, height, stream)
        else:
            window = placed_window(width, height, self.size, self.resize, stream if self.recipe == "random_crop" else None)
        flip = stream.random() < self.flip
        return Window(window.left, window.top, window.width, window.height, flip, window.isolated)

    def render(self, image: Image.Image, stream: random.Random) -> NDArray[np.uint8]:
        """Return the pixels ``[size, size, 3]`` of one image. Raises ValueError if the image is too small."""
        window = self.window(*image.size, stream)
        box = (window.left, window.top, window.left + window.width, window.top + window.height)
        target = (self.size, self.size)
        if window.isolated or (window.width, window.height) == target:
            left, top, right, bottom = map(round, box)
            image = image.crop((left, top, right, bottom))
            box = (0, 0, *image.size)
        if image.size != target:
            image = image.resize(target, Image.Resampling.BILINEAR, box)
        if window.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)


def streaming_error(path: Path, facts: Facts, view: View, *, dali: bool) -> DataError | None:
    """The error of an image that can be decoded but not streamed; None if it can.

    Either it is smaller than the crop of ``view``, or ``dali`` decodes it and cannot convert it as altprop does.
    """
    try:
        view.window(*facts.size, random.Random(0))
    except ValueError as error:
        return crop_error(path, error)
    return unconvertible(path, facts) if dali else None


def crop_error(path: Path, error: ValueError) -> DataError:
    """The error of an image that a view cannot crop."""
    return DataError(path, str(error), "a larger image", "dataset.crops.resize=<pixels of the short side>")


@dataclass(frozen=True, kw_only=True)
class Crops:
    """The crops of large images. Evaluation always crops the center.

    Args:
        train: The recipe for training images: ``random_resized_crop``, ``random_crop`` or ``centre_crop``.
        flip: Probability of a horizontal flip of a training image.
        size: Width and height of the crop, which is the network's input size.
        resize: Pixels that the short side is scaled to before a random or center crop; None if images already have that size.
    """

    train: Recipe = "random_resized_crop"
    flip: Probability = 0.5
    size: ImageSize = 224
    resize: ImageSize | None = 256

    def view(self, train: bool) -> View:
        """Return what the network sees of a training image, or of an image in evaluation."""
        return View(self.train, self.size, self.resize, self.flip) if train else View("centre_crop", self.size, self.resize, 0.0)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range."""
        size, resize, flip = (config.get(name) for name in ("size", "resize", "flip"))
        if config.get("train") not in (None, *RECIPES):
            yield Problem("dataset.crops.train", str(config["train"]), f"one of {', '.join(RECIPES)}")
        if isinstance(flip, (int, float)) and not 0 <= flip <= 1:
            yield Problem("dataset.crops.flip", str(flip), "a probability between 0 and 1")
        if isinstance(size, int) and size < 1:
            yield Problem("dataset.crops.size", str(size), "a width and height in pixels, 1 or more")
        if isinstance(size, int) and isinstance(resize, int) and resize < size:
            allowed = f"at least dataset.crops.size = {size}, or null for images that are not scaled"
            yield Problem("dataset.crops.resize", str(resize), allowed)
