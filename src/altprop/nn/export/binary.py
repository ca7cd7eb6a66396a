"""Trained binary networks as files without altprop's parametrizations: one bit per weight, or floats of -1 and 1."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.files import write_bytes
from altprop.nn.export.container import read_container, write_container
from altprop.nn.weights.binary.base import latent_weight
from altprop.nn.weights.binary.sign import Binarization, magnitude, sign

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


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of ``model`` for the same network without parametrizations: effective weights under their plain names."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        owner, marker, rest = name.partition(".parametrizations.")
        if not marker:
            state[name] = value
        elif rest.endswith(".original"):
            tensor = rest.removesuffix(".original")
            state[f"{owner}.{tensor}"] = getattr(model.get_submodule(owner), tensor).detach()
    return {name: value.cpu().contiguous() for name, value in state.items()}


def save_plain(model: nn.Module, path: Path) -> int:
    """Write :func:`plain_state` as safetensors and return the file's size in bytes."""
    write_bytes(path, save(plain_state(model)))
    return path.stat().st_size


def save_packed(model: nn.Module, path: Path) -> int:
    """Write ``model`` with one bit per weight of its binary layers as safetensors and return the file's size in bytes.

    A binary weight ``w`` becomes ``w.bits``, ``w.zeros`` if there are exact zeros, and ``w.scale`` if it has a scale; its shape
    is stored in the file's metadata. Everything else is stored unchanged. Raises ``ValueError`` if no layer is binary.
    """
    state = plain_state(model)
    shapes: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        binarization = binarization_of(module)
        if binarization is None or not binarization.binary:
            continue
        latent = latent_weight(module).detach()
        weight = f"{name}.weight" if name else "weight"
        del state[weight]
        shapes[weight] = list(latent.shape)
        bits, zeros = pack_signs(sign(latent, binarization.zero))
        state[f"{weight}.bits"] = bits
        if len(zeros):
            state[f"{weight}.zeros"] = zeros
        if binarization.scale != "none":
            state[f"{weight}.scale"] = magnitude(latent, binarization.scale).cpu()
    if not shapes:
        raise ValueError("no layer of this network is binary")
    return write_container(path, state, FORMAT, shapes)


def load_packed(path: Path) -> dict[str, Tensor]:
    """Load a file of :func:`save_packed` as the state of the plain network. Raises ``ValueError`` for any other file."""
    state, shapes = read_container(path, FORMAT, "a packed binary network")
    for weight, shape in shapes.items():
        bits, zeros, scale = (state.pop(f"{weight}.{part}", None) for part in _PARTS)
        assert bits is not None
        signs = unpack_signs(bits, torch.empty(0, dtype=torch.long) if zeros is None else zeros, tuple(shape))
        state[weight] = signs if scale is None else signs.mul_(scale)
    return state


def binarization_of(module: nn.Module) -> Binarization | None:
    """Return the :class:`Binarization` of a layer's weight, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    (first, *_) = module.parametrizations["weight"]  # type: ignore[index]
    return first if isinstance(first, Binarization) else None
