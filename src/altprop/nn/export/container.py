"""The safetensors files of compressed networks: tensors, the name of their format, and the shapes needed to expand them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from altprop.files import write_bytes


def write_container(path: Path, state: Mapping[str, Tensor], format_name: str, shapes: Mapping[str, Any]) -> int:
    """Write ``state`` and ``shapes`` atomically. Returns the size of the file in bytes."""
    write_bytes(path, save(dict(state), {"format": format_name, "shapes": json.dumps(shapes)}))
    return path.stat().st_size


def read_container(path: Path, format_name: str, content: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the shapes that :func:`write_container` wrote.

    Raises ``ValueError`` if the file has another format; ``content`` says what it should contain, as in ``a sparse network``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != format_name:
        raise ValueError(f"{path} does not contain {content}")
    return state, json.loads(metadata["shapes"])
