"""Trained sparse networks as files: compressed rows for matrices, bit masks for convolutions, nonzero weights only."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from altprop.nn.export.container import read_container, write_container
from altprop.nn.export.plain import parametrized_by, plain_state
from altprop.nn.weights.sparse.mask import Mask

FORMAT = "altprop-sparse-1"
State = dict[str, Tensor]


def compress_rows(weight: Tensor, mask: Tensor) -> State:
    """Return the compressed sparse rows of ``weight`` ``[out, in]`` at the ones of ``mask``.

    ``rows`` ``[out + 1]`` are offsets; ``columns`` ``[k]`` and ``values`` ``[k]`` are the active entries, row by row.
    """
    active = mask != 0
    columns = active.nonzero()[:, 1]
    narrow = torch.int16 if weight.shape[1] < 2**15 else torch.int32
    rows = torch.nn.functional.pad(active.sum(dim=1).cumsum(0), (1, 0)).to(torch.int32)
    return {"rows": rows, "columns": columns.to(narrow), "values": weight[active]}


def expand_rows(parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`compress_rows`: return ``[out, in]``."""
    weight = torch.zeros(shape, dtype=parts["values"].dtype)
    row = torch.repeat_interleave(torch.arange(shape[0]), parts["rows"].diff().long())
    weight[row, parts["columns"].long()] = parts["values"]
    return weight


def pack_mask(mask: Tensor) -> Tensor:
    """Pack ``mask`` of zeros and ones into ``[ceil(n / 8)]`` bytes, with the first entry in the highest bit."""
    return torch.from_numpy(np.packbits((mask != 0).flatten().cpu().numpy()))


def unpack_mask(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`pack_mask`: return booleans in ``shape``."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=prod(shape)).astype(bool)).view(shape)


def save_sparse(model: nn.Module, path: Path) -> int:
    """Write ``model`` with its masked layers compressed as safetensors and return the file's size in bytes.

    A matrix ``w`` becomes ``w.rows``, ``w.columns`` and ``w.values``, the weight of a convolution ``w.mask`` (one bit per unit)
    and ``w.values``; shapes are stored in the file's metadata. Everything else is stored unchanged. Raises
    ``ValueError`` if no layer is masked.
    """
    state = plain_state(model)
    shapes: dict[str, dict[str, list[int]]] = {}
    for parametrized, masking in parametrized_by(model, Mask):
        key = parametrized.name
        weight, mask = state.pop(key), masking.mask.detach().cpu()
        shapes[key] = {"weight": list(weight.shape), "mask": list(mask.shape)}
        if weight.dim() == 2:
            parts = compress_rows(weight, mask)
        else:
            parts = {"mask": pack_mask(mask), "values": weight[mask != 0].flatten()}
        state.update({f"{key}.{part}": value.contiguous() for part, value in parts.items()})
    if not shapes:
        raise ValueError("no layer of this network is sparse")
    return write_container(path, state, FORMAT, shapes)


def load_sparse(path: Path) -> State:
    """Load a file of :func:`save_sparse` as the state of the plain network. Raises ``ValueError`` for any other file."""
    state, shapes = read_container(path, FORMAT, "a sparse network")
    for key, shape in shapes.items():
        names = ("rows", "columns", "values") if len(shape["weight"]) == 2 else ("mask", "values")
        parts = {part: state.pop(f"{key}.{part}") for part in names}
        if len(shape["weight"]) == 2:
            state[key] = expand_rows(parts, tuple(shape["weight"]))
        else:
            active = unpack_mask(parts["mask"], tuple(shape["mask"]))
            weight = torch.zeros(shape["weight"], dtype=parts["values"].dtype)
            weight[active] = parts["values"].view(-1, *shape["weight"][active.dim() :])
            state[key] = weight
    return state
