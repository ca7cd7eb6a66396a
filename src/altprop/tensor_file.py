"""Reading a file of ``torch.save`` that may be damaged or hostile. Imports only faults, files and problems of altprop."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from altprop.faults import is_out_of_memory
from altprop.files import NotRegular, require_regular
from altprop.problems import first_line_of


class BadCheckpoint(Exception):  # noqa: N818 - names what the file is
    """The file is truncated, belongs to another run, or is not a checkpoint of altprop; the message says which in one line."""


def read_tensor_file(path: Path, device: torch.device | str = "cpu", *, verify: bool = True, before_zip: bool = False) -> Any:
    """Load the tensors and plain values in ``path``; nothing in the file is executed.

    With ``verify``, every checksum in the file is verified first; without, only what is needed is read from the disk. With
    ``before_zip``, the file may also be one of PyTorch before 1.6, which has no checksums. Raises :class:`BadCheckpoint` if the
    file is missing, damaged, not a regular file, or holds anything else.
    """
    try:
        require_regular(path)
        if before_zip and not zipfile.is_zipfile(path):
            return _load(path, device)
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() if verify else None
    except BadCheckpoint:
        raise
    except NotRegular as error:
        raise BadCheckpoint(str(error)) from error
    except Exception as error:  # a foreign archive can break the reader in any way
        if is_out_of_memory(error):
            raise
        raise BadCheckpoint(f"{path}: not a complete checkpoint ({error})") from error
    if damaged is not None:
        raise BadCheckpoint(f"{path}: damaged (checksum of {damaged} is wrong)")
    return _load(path, device, mmap=not verify)


def _load(path: Path, device: torch.device | str, *, mmap: bool = False) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = first_line_of(error) or type(error).__name__
        raise BadCheckpoint(f"{path}: it holds more than tensors and plain values ({reason})") from error
