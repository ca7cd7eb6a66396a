"""Cutting a model into the blocks that are trained apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from altprop.algorithms.context import Context
from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem
from altprop.seeding import derive_seed


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


def companions(
    model: nn.Module,
    shapes: Sequence[tuple[int, ...]],
    make: Callable[[tuple[int, ...]], nn.Module],
    context: Context,
    stream: str,
) -> nn.ModuleList:
    """A module for every block that hands on ``shapes``, on the device and in the dtype of ``model``: heads, synthesizers.

    Drawn from the random stream called ``stream``, so that they do not depend on how the model was drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derive_seed(context.seed, stream))
        made = [make(shape) for shape in shapes]
    return nn.ModuleList(made).to(context.device, next(model.parameters()).dtype)


def cut_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of ``block_size`` and ``cut_points`` that show without the model."""
    block_size, cut_points = config.get("block_size", 1), config.get("cut_points")
    if not isinstance(block_size, int) or block_size < 1:
        yield Problem("algorithm.block_size", str(block_size), "a whole number from 1 on", "algorithm.block_size=1")
    if cut_points is not None and block_size != 1:
        given = f"given together with algorithm.block_size={block_size}"
        yield Problem("algorithm.cut_points", given, "blocks are cut either by size or at given points", "algorithm.block_size=1")
