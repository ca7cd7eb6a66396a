"""Cutting a model into blocks that are trained separately."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm, AlgorithmOptions
from altprop.algorithms.context import Context
from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem
from altprop.ranges import PositiveInt
from altprop.seeding import derive_seed


class BlockOptions(AlgorithmOptions, total=False):
    """The arguments of :class:`BlockAlgorithm`, for subclasses that pass them on."""

    block_size: PositiveInt
    cut_points: Sequence[PositiveInt] | None


class BlockAlgorithm(Algorithm):
    """Base of algorithms that train the blocks of a model separately.

    Args:
        block_size: Number of layers per block. A remainder at the end becomes a block of its own.
        cut_points: 0-based indices of the layers that start a new block. Replaces ``block_size``. If the last is the number of
            layers, the model's head, which is pooling and the classifier, is a block of its own.
        options: Arguments of :class:`Algorithm`.
    """

    def __init__(
        self, *, block_size: PositiveInt = 1, cut_points: Sequence[PositiveInt] | None = None, **options: Unpack[AlgorithmOptions]
    ) -> None:
        super().__init__(**options)
        self.block_size = block_size
        self.cut_points = cut_points

    def cut(self, model: nn.Module) -> list[nn.Sequential]:
        """Return the blocks of ``model``; see :func:`cut`."""
        return cut(model, self.block_size, self.cut_points)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of ``block_size`` and ``cut_points`` that are visible without the model."""
        block_size, cut_points = config.get("block_size", 1), config.get("cut_points")
        if not isinstance(block_size, int) or block_size < 1:
            yield Problem("algorithm.block_size", str(block_size), "a whole number from 1 on", "algorithm.block_size=1")
        if cut_points is not None and block_size != 1:
            description = f"set together with algorithm.block_size={block_size}"
            allowed = "blocks are cut either by size or at given points"
            yield Problem("algorithm.cut_points", description, allowed, "algorithm.block_size=1")


def cut_positions(num_layers: int, block_size: int, cut_points: Sequence[int] | None) -> list[int]:
    """Return the indices of the layers at which blocks start and end: ``[0, …, num_layers]``.

    ``cut_points`` are the 0-based layers that start a new block. Without them every ``block_size`` layers form a block, and a
    remainder at the end forms a block of its own. ``num_layers`` as the last cut point leaves a last block without layers.

    Raises ``ConfigError`` if cut points are outside ``1 … num_layers`` or not increasing.
    """
    if cut_points is None:
        return [*range(0, num_layers, block_size), num_layers]
    positions = [0, *cut_points, num_layers]
    if any(later <= earlier for earlier, later in pairwise([0, *cut_points, num_layers + 1])):
        allowed = f"increasing whole numbers from 1 to {num_layers}: this model can be cut after each of its {num_layers} layers"
        raise ConfigError([Problem("algorithm.cut_points", str(list(cut_points)), allowed, "algorithm.cut_points=null")])
    return positions


def cut(model: nn.Module, block_size: int, cut_points: Sequence[int] | None) -> list[nn.Sequential]:
    """Group the layers of ``model`` into blocks, in forward order and without the classifier. They share the model's layers.

    Raises ``ConfigError`` if the model has no ``blocks``, and as :func:`cut_positions`.
    """
    if not isinstance(model, FeedForward) or not model.blocks:
        description = f"{type(model).__name__} has no blocks"
        raise ConfigError([Problem("model", description, "a feed-forward model with at least one block", "model=convnet")])
    positions = cut_positions(len(model.blocks), block_size, cut_points)
    return [nn.Sequential(*model.blocks[start:end]) for start, end in pairwise(positions)]


def output_shapes(blocks: Sequence[nn.Module], input_shape: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
    """Return the output shape of each block without the batch dimension, from one blank image in evaluation mode.

    Raises ``ConfigError`` if a block returns anything but a tensor.
    """
    modes = [(module, module.training) for block in blocks for module in block.modules()]
    shapes: list[tuple[int, ...]] = []
    try:
        with torch.no_grad():
            dtype = next((value.dtype for value in blocks[0].parameters()), None)
            features = torch.zeros(1, *input_shape, device=device, dtype=dtype)
            for block in blocks:
                features = block.eval()(features)
                if not isinstance(features, Tensor):
                    description = f"block {len(shapes) + 1} returns a {type(features).__name__}"
                    raise ConfigError([Problem("model", description, "blocks that take one tensor and return one tensor")])
                shapes.append(tuple(features.shape[1:]))
    finally:
        for module, training in modes:
            module.training = training
    return shapes


def companions(model: nn.Module, factories: Iterable[Callable[[], nn.Module]], context: Context, stream: str) -> nn.ModuleList:
    """Make a module, such as a head or a synthesizer, with each of ``factories``, on the device and in the dtype of ``model``.

    Their initial values come from the random stream called ``stream``, independently of those of the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derive_seed(context.seed, stream))
        modules = [make() for make in factories]
    return nn.ModuleList(modules).to(context.device, next(model.parameters()).dtype)
