"""The weights that a run starts from: those of another run, or a file of published ones. Nothing in the files is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from altprop.files import require_regular
from altprop.nn.export import binary, sparse
from altprop.nn.weights.saved_run import checkpoint_file, computed_weights, is_checkpoint, plain_name, saved_masks
from altprop.problems import ConfigError, Problem, message_of
from altprop.tensor_file import BadCheckpoint, read_tensor_file

_ALLOWED = "the directory or a checkpoint of a run, a state dict of tensors, or a .safetensors file"
_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys below which published files have their state dict."""
_PREFIXES = ("module.", "_orig_mod.")
"""What wrapped models (several GPUs, ``torch.compile``) put in front of every name."""


@dataclass(frozen=True)
class StartWeights:
    """The tensors of ``file`` by name, and whether some of them are zero because a mask or a sparse export says so."""

    file: Path
    tensors: Mapping[str, Tensor]
    masked: bool


def read_start_weights(path: str, model: nn.Module, key: str, *, with_masks: bool = True) -> StartWeights:
    """Read the weights in ``path`` for ``model``.

    ``path`` is the directory of a run or one of its checkpoints, which gives the weights that the network computed with
    (:func:`computed_weights`); a state dict that torch saved, alone or as the entry ``state_dict``, ``model`` or
    ``model_state_dict``; or a ``.safetensors`` file, including those of altprop's exports. Raises ``ConfigError`` about
    configuration key ``key`` if it is none of these.
    """
    file = checkpoint_file(path, key)
    if file.suffix == ".safetensors":
        return _safetensors(file, key)
    try:
        content = read_tensor_file(file, before_zip=True)
    except BadCheckpoint as error:
        description = f"{file} cannot be read ({str(error).removeprefix(f'{file}: ')})"
        raise ConfigError([Problem(key, description, _ALLOWED)]) from error
    if is_checkpoint(content):
        masked = bool(saved_masks(content["algorithm"]))
        return StartWeights(file, computed_weights(content, model, key, with_masks=with_masks), masked)
    for state in (content, *(content[name] for name in _WRAPPERS if isinstance(content, dict) and name in content)):
        if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
            return StartWeights(file, _without_prefix(state), masked=False)
    raise ConfigError([Problem(key, f"{file} has no state dict", _ALLOWED)])


def _safetensors(file: Path, key: str) -> StartWeights:
    try:
        require_regular(file)
        with safe_open(file, framework="pt") as content:
            kind = (content.metadata() or {}).get("format")
            if kind == binary.FORMAT:
                return StartWeights(file, binary.load_packed(file), masked=False)
            if kind == sparse.FORMAT:
                return StartWeights(file, sparse.load_sparse(file), masked=True)
            names = content.keys()
            return StartWeights(file, _without_prefix({name: content.get_tensor(name) for name in names}), masked=False)
    except (SafetensorError, ValueError, OSError) as error:
        raise ConfigError([Problem(key, f"{file} cannot be read ({message_of(error)})", _ALLOWED)]) from error


def _without_prefix(state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(str(name).startswith(prefix) for name in state):
            state = {str(name).removeprefix(prefix): value for name, value in state.items()}
    return {plain_name(str(name)): value for name, value in state.items()}
