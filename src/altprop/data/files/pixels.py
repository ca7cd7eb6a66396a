"""Conversion of any image that Pillow reads to 8-bit RGB, without losing what it shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

WHITE = (255, 255, 255, 255)
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

    It is rotated as its EXIF data say, levels of more than 8 bits and floating-point values in [0, 1] are scaled to 0 ... 255,
    and transparent pixels show a white background. Raises ValueError for values whose scale is not known.
    """
    scale, zero_is_white = _scale_of(image)
    image = ImageOps.exif_transpose(image)
    if scale:
        levels = np.asarray(image).astype(np.float64)
        shares = _in_range(levels, scale)
        if zero_is_white:
            shares = 1 - shares
        if isinstance(image.info.get("transparency"), int):
            shares[levels == image.info["transparency"]] = 1
        return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")
    if _is_transparent(image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _scale_of(image: Image.Image) -> tuple[int, bool]:
    """The level of white in a gray image that Pillow does not scale itself, 0 for all others, and whether 0 is white instead."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits, signed = tags.get(BITSPERSAMPLE, (16,))[0], tags.get(SAMPLEFORMAT, (1,))[0] == 2
    zero_is_white = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    if signed and bits == 8:
        raise ValueError("levels are signed, so their scale is not known")
    if image.mode == "F":
        return 1, zero_is_white
    if not image.mode.startswith("I"):
        return 0, False
    if bits <= 16:
        return 2 ** (bits - signed) - 1, zero_is_white
    highest = np.asarray(image).max(initial=0)
    if 0 < highest < 256:
        raise ValueError(f"levels of {bits} bits are at most {highest}, so their scale is not known")
    return 2**16 - 1, zero_is_white


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _in_range(levels: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """``levels`` divided by ``scale``. Raises ValueError if one of them is not between 0 and ``scale``."""
    low, high = levels.min(initial=scale), levels.max(initial=0)
    if not (low >= 0 and high <= scale):
        raise ValueError(f"pixels from {low:g} to {high:g}, but the scale is 0 to {scale}")
    return levels / scale
