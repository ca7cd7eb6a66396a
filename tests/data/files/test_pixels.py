"""Images of any kind become the 8-bit RGB that a viewer shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from altprop.data.errors import DataError
from altprop.data.files.folder import open_image

Writer = Callable[[Path], None]


def _save(values: object, mode: str | None = None, **options: object) -> Writer:
    return lambda path: Image.fromarray(np.asarray(values), mode).save(path, **options)


def _palette(path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(path, transparency=bytes([255, 0]))


def _rotated(path: Path) -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (0, 0, 255)])
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(path, exif=exif)


def _tiff(levels: object, **tags: int) -> Writer:
    """A gray TIFF with ``tags`` such as ``t274=6``."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    return lambda path: Image.fromarray(np.asarray(levels)).save(path, tiffinfo=info)


def _tiff_of_12_bits(path: Path) -> None:
    _tiff(np.array([[0, 0]], np.uint16))(path)
    content = path.read_bytes().replace(b"\x02\x01\x03\0\x01\0\0\0\x10\0", b"\x02\x01\x03\0\x01\0\0\0\x0c\0")
    path.write_bytes(content[:-4] + bytes([0xFF, 0xF8, 0, 0]))


def _transparent(path: Path) -> None:
    image = Image.new("RGBA", (2, 1))
    image.putdata([(10, 20, 30, 255), (10, 20, 30, 0)])
    image.save(path)


CASES: dict[str, tuple[str, Writer, list[list[int]]]] = {
    "16-bit PNG": ("a.png", _save(np.array([[20000, 45000]], np.uint16)), [[78] * 3, [175] * 3]),
    "16-bit TIFF": ("a.tif", _save(np.array([[0, 65535]], np.uint16)), [[0] * 3, [255] * 3]),
    "32-bit TIFF": ("a.tif", _save(np.array([[0, 45000]], np.int32)), [[0] * 3, [175] * 3]),
    "floating-point TIFF": ("a.tif", _save(np.array([[0.0, 0.5]], np.float32)), [[0] * 3, [128] * 3]),
    "gray": ("a.png", _save(np.array([[7, 200]], np.uint8)), [[7] * 3, [200] * 3]),
    "palette with transparency": ("a.png", _palette, [[10, 20, 30], [255] * 3]),
    "transparent": ("a.png", _transparent, [[10, 20, 30], [255] * 3]),
    "12-bit TIFF": ("a.tif", _tiff_of_12_bits, [[255] * 3, [128] * 3]),
    "16-bit TIFF with black as its highest level": (
        "a.tif",
        _tiff(np.array([[0, 65535]], np.uint16), t262=0),
        [[255] * 3, [0] * 3],
    ),
    "16-bit gray with a transparent level": (
        "a.png",
        _save(np.array([[0, 20000]], np.uint16), transparency=0),
        [[255] * 3, [78] * 3],
    ),
    "gray TIFF rotated by EXIF": ("a.tif", _tiff(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), t274=6), [[4] * 3, [1] * 3]),
    "rotated by EXIF": ("a.png", _rotated, [[0, 0, 255], [255, 0, 0]]),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_that_a_viewer_shows(case: str, tmp_path: Path) -> None:
    name, write, expected = CASES[case]
    write(tmp_path / name)
    image = open_image(tmp_path / name)
    assert image.mode == "RGB"
    assert np.asarray(image)[0].tolist() == expected


REFUSED: dict[str, Writer] = {
    "floating-point values above 1": _save(np.array([[0.0, 200.0]], np.float32)),
    "not a number": _save(np.array([[0.0, np.nan]], np.float32)),
    "levels of 8 bits in 32": _save(np.array([[0, 200]], np.int32)),
    "too many pixels": lambda path: path.write_bytes(b"P5 8193 8192 255\n") and None,
    "an EPS file": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n") and None,
    "negative levels": _save(np.array([[-1, 5]], np.int32)),
    "a pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "empty": lambda path: path.write_bytes(b"") and None,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_known_pixels_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    REFUSED[case](tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"^[^\n]*a\.tif (cannot be decoded|is empty|is a broken link)[^\n]*$"):
        open_image(tmp_path / "a.tif")
