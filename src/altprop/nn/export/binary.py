"""Trained binary networks as files without altprop's parametrizations: one bit per weight, or floats of -1 and 1."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from altprop.files import write_bytes
from altprop.nn.export.container import read_container, write_container
from altprop.nn.export.plain import parametrized_by, plain_state
from altprop.nn.weights.binary.sign import Binarization, Scale, sign
from altprop.nn.weights.layers import parametrizations_of

FORMAT = "altprop-binary-1"
_PARTS = ("bits", "zeros", "scale")


def pack_signs(signs: Tensor) -> tuple[Tensor, Tensor]:
    """Pack signs of any shape into bits and indices of zeros.

    Returns ``[ceil(n / 8)]`` bytes, with the first sign in the highest bit and 1 for positive signs, and the flat indices of
    exact zeros, whose bit is 0.
    """
    flat = signs.detach().cpu().flatten()
    bits = torch.from_numpy(np.packbits((flat > 0).numpy()))
    return bits, (flat == 0).nonzero().flatten()


def unpack_signs(bits: Tensor, zeros: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`pack_signs`: return floats of -1, 0 and 1 in ``shape``."""
    count = prod(shape)
    signs = torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).float().mul_(2).sub_(1)
    signs[zeros] = 0.0
    return signs.view(shape)


def save_plain(model: nn.Module, path: Path) -> int:
    """Write :func:`~altprop.nn.export.plain.plain_state` as safetensors and return the file's size in bytes."""
    write_bytes(path, save(plain_state(model)))
    return path.stat().st_size


def save_packed(model: nn.Module, path: Path) -> int:
    """Write ``model`` with one bit per weight of its binary layers as safetensors and return the file's size in bytes.

    A binary weight ``w`` becomes ``w.bits``, ``w.zeros`` if there are exact zeros, and ``w.scale`` if it has a scale or a
    spectral norm; its shape is stored in the file's metadata. Everything else is stored unchanged. Raises ``ValueError`` if no
    layer is binary.
    """
    state = plain_state(model)
    shapes: dict[str, list[int]] = {}
    for weight, binarization in parametrized_by(model, Binarization):
        if not binarization.binary:
            continue
        name, latent, effective = weight.name, weight.original, state.pop(weight.name)
        shapes[name] = list(latent.shape)
        bits, zeros = pack_signs(sign(latent, binarization.zero))
        state[f"{name}.bits"] = bits
        if len(zeros):
            state[f"{name}.zeros"] = zeros
        has_norm = len(parametrizations_of(weight.module, weight.tensor)) > 1
        if binarization.scale != "none" or has_norm:
            scale = binarization.scale if binarization.scale != "none" else "layer"
            state[f"{name}.scale"] = common_magnitude(effective, scale, binarization.transposed_groups)
    if not shapes:
        raise ValueError("no layer of this network is binary")
    return write_container(path, state, FORMAT, shapes)


def common_magnitude(weight: Tensor, scale: Scale, transposed_groups: int) -> Tensor:
    """Return the magnitude that all non-zero entries of a binary ``weight`` share, in the shape of
    :func:`altprop.nn.weights.binary.sign.magnitude`.
    """
    magnitudes = weight.abs()
    if scale == "layer":
        return magnitudes.max()
    if transposed_groups:
        grouped = magnitudes.unflatten(0, (transposed_groups, -1))
        largest = grouped.amax(dim=(1, *range(3, grouped.dim())), keepdim=True)
        return largest.expand(-1, grouped.shape[1], *largest.shape[2:]).flatten(0, 1).contiguous()
    return magnitudes.amax(dim=tuple(range(1, weight.dim())), keepdim=True)


def load_packed(path: Path) -> dict[str, Tensor]:
    """Load a file of :func:`save_packed` as the state of the plain network. Raises ``ValueError`` for any other file."""
    state, shapes = read_container(path, FORMAT, "a packed binary network")
    for weight, shape in shapes.items():
        bits, zeros, scale = (state.pop(f"{weight}.{part}", None) for part in _PARTS)
        assert bits is not None
        signs = unpack_signs(bits, torch.empty(0, dtype=torch.long) if zeros is None else zeros, tuple(shape))
        state[weight] = signs if scale is None else signs.mul_(scale)
    return state
