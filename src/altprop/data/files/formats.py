"""Readers of the file formats of the classic data sets. None of them executes code from a file."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from altprop.data.errors import DataError

_IDX_UNSIGNED_BYTE = 8
_PICKLE_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with the given number of ``dimensions``.

    Reads ``path`` + ``.gz`` if only that file exists. Raises DataError if the file is missing, truncated or in another format.
    """
    compressed = path.with_name(path.name + ".gz")
    source = compressed if compressed.is_file() and not path.is_file() else path
    expected = f"an IDX file of unsigned bytes with {dimensions} dimension{'s' if dimensions > 1 else ''}"
    try:
        content = gzip.decompress(source.read_bytes()) if source is compressed else source.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(source, "is missing" if not source.is_file() else f"cannot be read ({error})", expected) from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, _IDX_UNSIGNED_BYTE, dimensions)):
        raise DataError(source, "does not have the expected header", expected)
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) != header + math.prod(shape):
        raise DataError(
            source, f"is truncated: it has {len(content):,} bytes", f"{header + math.prod(shape):,} as its header says"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Restores dictionaries, lists, strings and numpy arrays, and rejects everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLE_ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and numpy arrays, the format of CIFAR's Python version.

    Raises DataError if the file is missing, truncated or holds anything else.
    """
    expected = "a pickled dictionary of plain values and arrays"
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError as error:
        raise DataError(path, "is missing", expected) from error
    except Exception as error:  # a truncated pickle may raise anything
        raise DataError(path, f"cannot be read ({type(error).__name__}: {error})", expected) from error
    if not isinstance(content, dict):
        raise DataError(path, f"holds a {type(content).__name__}", expected)
    return content


def read_matlab(path: Path) -> dict[str, Any]:
    """Read the arrays of a MATLAB 5 file, the format of SVHN's cropped digits.

    Raises DataError if the file is missing, truncated or in another format.
    """
    from scipy.io import loadmat

    try:
        return dict(loadmat(str(path)))
    except FileNotFoundError as error:
        raise DataError(path, "is missing", "a MATLAB 5 file") from error
    except Exception as error:  # scipy's parsers may raise anything
        raise DataError(path, f"cannot be read ({type(error).__name__}: {error})", "a MATLAB 5 file") from error
