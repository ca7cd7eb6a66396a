"""Features of blocks: flat ``[features]``, sequences with channels first or last, and maps ``[channels, height, width]``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from altprop.problems import ConfigError, Problem

FeatureShape = tuple[int, ...]
"""Shape of one sample's features: ``(channels, height, width)``, ``(channels, positions)`` or ``(features,)``."""


class ChannelsFirst(nn.Module):
    """Gives ``module`` sequences ``[batch, positions, channels]`` as ``[batch, channels, positions]``.

    With ``restore``, its output is turned back.
    """

    def __init__(self, module: nn.Module, *, restore: bool) -> None:
        super().__init__()
        self.module = module
        self.restore = restore

    def forward(self, features: Tensor, *others: Any) -> Tensor:
        outputs: Tensor = self.module(features.transpose(1, 2), *others)
        return outputs.transpose(1, 2) if self.restore else outputs


def has_channels_last(block: nn.Module, shape: FeatureShape) -> bool:
    """Return whether the output of ``block``, of ``shape`` without the batch, is ``(positions, channels)``, as tokens are.

    A block can say so in an attribute ``channels_last``. Otherwise the last of its modules decides whose number of outputs is
    that of one of the two axes: convolutions and batch norms have channels first; linear, attention and recurrent layers and
    layer norms have them last. Channels are last if none does. False for other shapes than ``(a, b)``.
    """
    if len(shape) != 2:
        return False
    modules = list(block.modules())[::-1]
    for module in modules:
        stated = getattr(module, "channels_last", None)
        if isinstance(stated, bool):
            return stated
    for module in modules:
        channels, axes = _channels(module)
        fitting = [axis for axis in axes if shape[axis] == channels]
        if len(fitting) == 1:
            return fitting == [1]
    return True


def _channels(module: nn.Module) -> tuple[int, tuple[int, ...]]:
    """Return the number of channels that ``module`` outputs, and the axes of a sequence, 0 or 1, where they may be."""
    if isinstance(module, _ConvNd):
        return module.out_channels, (0,) if len(module.kernel_size) == 1 else (0, 1)  # maps are flattened either way
    if isinstance(module, _NormBase):
        return module.num_features, (0,)
    if isinstance(module, nn.GroupNorm):
        return module.num_channels, (0,)
    if isinstance(module, nn.Linear):
        return module.out_features, (1,)
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, (1,)
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim, (1,)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return module.normalized_shape[-1], (1,)
    if isinstance(module, nn.RNNBase):
        return (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1), (1,)
    return 0, ()


def as_map(shape: FeatureShape) -> FeatureShape:
    """Return ``shape`` with a sequence ``(channels, positions)`` as the map of height 1 that it is for convolutions.

    Raises ``ConfigError`` for shapes of more than three axes.
    """
    if len(shape) > 3:
        description = f"a block of this model outputs features of shape {list(shape)}"
        allowed = "[features], [channels, positions], [positions, channels] or [channels, height, width]"
        raise ConfigError([Problem("model", description, allowed)])
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape
