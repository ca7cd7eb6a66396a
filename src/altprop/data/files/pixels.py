"""Conversion of any image that Pillow reads to 8-bit RGB, without losing what it shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

WHITE = (255, 255, 255, 255)
LEVELS_16 = 65535
ORIENTATION = 0x0112
"""The EXIF tag that says how an image is rotated."""


def conversion_of(image: Image.Image) -> str:
    """What :func:`to_rgb` does with ``image`` that plain decoders do not, in words; empty if they show the same."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        return "is rotated by its EXIF data"
    if image.mode.startswith("I") or image.mode == "F":
        return f"has levels of more than 8 bits (mode {image.mode})"
    return "has transparent pixels" if _is_transparent(image) else ""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as it is meant to be seen, with 8 bits per channel.

    It is rotated as its EXIF data say, 16-bit levels and floating-point values in [0, 1] are scaled to 0 ... 255, and transparent
    pixels show a white background. Raises ValueError for values whose scale is not known.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return _gray(_in_range(np.asarray(image).astype(np.float64), LEVELS_16))
    if image.mode == "F":
        return _gray(_in_range(np.asarray(image).astype(np.float64), 1))
    if _is_transparent(image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _in_range(values: NDArray[np.float64], highest: int) -> NDArray[np.float64]:
    """``values`` divided by ``highest``. Raises ValueError if one of them is not between 0 and ``highest``."""
    low, high = values.min(initial=highest), values.max(initial=0)
    if not (low >= 0 and high <= highest):
        raise ValueError(f"pixels from {low:g} to {high:g}, but the scale is 0 to {highest}")
    return values / highest


def _gray(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")
