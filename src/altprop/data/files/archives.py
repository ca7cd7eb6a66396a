"""Extraction of tar archives by code that says nothing about what may be in them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def safe_extraction() -> Iterator[None]:
    """Refuse absolute paths, links to the outside and special files in archives that are extracted inside without a filter.

    torchvision extracts archives like that. Python 3.12 and 3.13 warn about it, and 3.14 refuses the same as here.
    """
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before
