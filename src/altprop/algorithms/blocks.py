"""Cutting a model into the blocks that are trained apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem


def cut_positions(num_layers: int, block_size: int, cut_points: Sequence[int] | None) -> list[int]:
    """The indices between which the blocks lie: ``[0, …, num_layers]``.

    ``cut_points`` are the 0-based layers that begin a new block; without them every ``block_size`` layers form one, and what
    is left over at the end forms a block of its own. Raises ``ConfigError`` for cut points outside ``1 … num_layers - 1`` or
    out of order.
    """
    if cut_points is None:
        return [*range(0, num_layers, block_size), num_layers]
    positions = [0, *cut_points, num_layers]
    if any(later <= earlier for earlier, later in pairwise(positions)):
        allowed = f"increasing whole numbers from 1 to {num_layers - 1}, for this model has {num_layers} layers to cut between"
        raise ConfigError([Problem("algorithm.cut_points", str(list(cut_points)), allowed, "algorithm.cut_points=null")])
    return positions


def cut(model: nn.Module, block_size: int, cut_points: Sequence[int] | None) -> list[nn.Sequential]:
    """The feature blocks of ``model``, grouped; views that share the model's layers, in forward order, without the classifier.

    Raises ``ConfigError`` for a model that exposes no blocks, and as :func:`cut_positions`.
    """
    if not isinstance(model, FeedForward) or not model.blocks:
        given = f"{type(model).__name__} has no blocks"
        raise ConfigError([Problem("model", given, "a feed-forward model with at least one block", "model=convnet")])
    positions = cut_positions(len(model.blocks), block_size, cut_points)
    return [nn.Sequential(*model.blocks[start:end]) for start, end in pairwise(positions)]


def output_shapes(blocks: Sequence[nn.Module], input_shape: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
    """What each block hands on, without the batch dimension, found by passing one blank image through in evaluation mode."""
    modes = [(module, module.training) for block in blocks for module in block.modules()]
    shapes = []
    try:
        with torch.no_grad():
            dtype = next((value.dtype for value in blocks[0].parameters()), None)
            features = torch.zeros(1, *input_shape, device=device, dtype=dtype)
            for block in blocks:
                features = block.eval()(features)
                shapes.append(tuple(features.shape[1:]))
    finally:
        for module, training in modes:
            module.training = training
    return shapes
