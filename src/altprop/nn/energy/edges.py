"""Edges of energy-based networks: the connections between two neighboring layers of states, and their adjoints.

An edge has one weight and one bilinear form ``<up(below), above>``. ``up`` is a linear map, or a convolution followed by a
pooling, so that states are defined after pooling (Laborieux et al. 2021, methods; ``up`` and ``down`` of the dynamics). Every
function is differentiable in its tensors; the positions that a max pooling selects are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.nn import grad as convolution_gradients

from altprop.nn.energy.products import outer_products, product

Pool = Literal["max", "average", "none"]
Shape = tuple[int, ...]
Apply = Callable[[Tensor], Tensor]
"""A function of an edge with one weight: :func:`convolve` or :func:`transpose` of many states."""


class Routing(NamedTuple):
    """The positions that a max pooling selected: flat indices ``[batch, channels, height / 2, width / 2]``, and its input."""

    indices: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Edge:
    """Geometry of one edge; ``below`` and ``above`` are the shapes of its two states without the batch.

    A linear edge has neither ``kernel`` nor ``pool``; its lower state may have any shape and is flattened.
    """

    below: Shape
    above: Shape
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    pool: Pool = "none"

    @property
    def is_convolution(self) -> bool:
        return self.kernel > 0

    @property
    def unpooled(self) -> Shape:
        """Shape before pooling, without the batch."""
        if not self.is_convolution:
            return self.above
        height, width = (convolved(size, self.kernel, self.stride, self.padding) for size in self.below[1:])
        return (self.above[0], height, width)


class Skip(NamedTuple):
    """A connection without weights between two states of one shape: ``strength <below, above>`` in the primitive function.

    ``below`` and ``above`` are the numbers of the states, from 0 on.
    """

    below: int
    above: int
    strength: float


def convolved(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the height or width after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def convolve(edge: Edge, below: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute the drive of the upper state before pooling: ``[batch, *below]`` -> ``[batch, *unpooled]``.

    A convolution is computed in the type and memory format of ``weight``; its result has the type of ``below``.
    """
    if not edge.is_convolution:
        return product(flatten(below), weight, bias)
    below = _like(weight, below)
    if weight.dtype == below.dtype:
        return functional.conv2d(below, weight, bias, stride=edge.stride, padding=edge.padding)
    drive = functional.conv2d(below.to(weight.dtype), weight, None, stride=edge.stride, padding=edge.padding).to(below.dtype)
    return drive if bias is None else drive + bias.view(-1, 1, 1)


def pool(edge: Edge, drive: Tensor) -> tuple[Tensor, Routing | None]:
    """Pool ``[batch, *unpooled]`` to ``[batch, *above]``; ties within a window go to the first value in row-major order."""
    if edge.pool == "max":
        # On a CPU, torch's pooling of a contiguous tensor takes twice as long as that of a channels-last copy with the copy.
        copies = drive.device.type == "cpu" and drive.is_contiguous()
        channels_last = drive.contiguous(memory_format=torch.channels_last) if copies else drive
        pooled, indices = functional.max_pool2d(channels_last, 2, return_indices=True)
        return pooled.contiguous() if copies else pooled, Routing(indices, drive)
    if edge.pool == "average":
        return functional.avg_pool2d(drive, 2), None
    return drive, None


def up(edge: Edge, below: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Routing | None]:
    """Compute the bottom-up drive of the upper state, ``[batch, *above]``, and the positions that it comes from."""
    return pool(edge, convolve(edge, below, weight, bias))


def unpool(edge: Edge, above: Tensor, routing: Routing | None, out: Tensor | None = None) -> Tensor:
    """Apply the adjoint of the pooling: ``[batch, *above]`` -> ``[batch, *unpooled]``, zero at positions that were not selected.

    The result of a max pooling is written to ``out`` if that is given.
    """
    if edge.pool == "max":
        assert routing is not None
        above = above.contiguous() if routing.pooled.is_contiguous() else above  # its memory format is that of the computation
        arguments = (above, routing.pooled.detach(), [2, 2], [2, 2], [0, 0], [1, 1], False, routing.indices)
        with _windows_do_not_overlap():
            if out is not None:
                torch.ops.aten.max_pool2d_with_indices_backward.grad_input(*arguments, grad_input=out)
                return out
            return torch.ops.aten.max_pool2d_with_indices_backward(*arguments)
    if edge.pool == "average":
        spread = functional.interpolate(above, scale_factor=2, mode="nearest") * 0.25
        _, height, width = edge.unpooled
        return functional.pad(spread, (0, width - spread.shape[-1], 0, height - spread.shape[-2]))
    return above


def transpose(edge: Edge, unpooled: Tensor, weight: Tensor) -> Tensor:
    """Apply the adjoint of :func:`convolve` without bias: ``[batch, *unpooled]`` -> ``[batch, *below]``; same types."""
    if not edge.is_convolution:
        return unflatten(unpooled @ weight, edge.below)
    unpooled = _like(weight, unpooled)
    drive = functional.conv_transpose2d(
        unpooled.to(weight.dtype), weight, stride=edge.stride, padding=edge.padding, output_padding=left_over(edge)
    )
    return drive.to(unpooled.dtype)


def _like(weight: Tensor, state: Tensor) -> Tensor:
    """Return ``state`` contiguous if the ``weight`` of a convolution is: torch computes in channels-last if either of them is."""
    return state if weight.is_contiguous(memory_format=torch.channels_last) else state.contiguous()


def left_over(edge: Edge) -> tuple[int, ...]:
    """Return the numbers of rows and columns of the lower state that the strides of a convolution do not reach."""
    return tuple(
        size - ((out - 1) * edge.stride + edge.kernel - 2 * edge.padding)
        for size, out in zip(edge.below[1:], edge.unpooled[1:], strict=True)
    )


def down(edge: Edge, above: Tensor, weight: Tensor, routing: Routing | None) -> Tensor:
    """Compute the top-down drive of the lower state, ``[batch, *below]``: the adjoint of :func:`up` without bias."""
    return transpose(edge, unpool(edge, above, routing), weight)


def weight_gradient(edge: Edge, below: Tensor, unpooled: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute the derivative of ``sum <convolve(below), unpooled>`` with respect to the weight, summed over the batch.

    The derivative for a linear edge is written to ``out`` if that is given and torch computes it.
    """
    if not edge.is_convolution:
        return outer_products(unpooled, flatten(below), out=out)
    shape = (edge.above[0], edge.below[0], edge.kernel, edge.kernel)
    return convolution_gradients.conv2d_weight(below, shape, unpooled, stride=edge.stride, padding=edge.padding)


def bias_gradient(edge: Edge, above: Tensor) -> Tensor:
    """Compute the derivative of ``sum <up(below), above>`` with respect to the bias.

    It needs no unpooling: the adjoint of a pooling preserves the sum over positions.
    """
    return above.sum(dim=(0, 2, 3)) if edge.is_convolution else above.sum(dim=0)


def flatten(state: Tensor) -> Tensor:
    """Flatten ``[batch, channels, height, width]`` to ``[batch, height * width * channels]``; a view if it is channels-last."""
    return state.permute(0, 2, 3, 1).reshape(state.shape[0], -1) if state.dim() == 4 else state


def unflatten(flat: Tensor, shape: Shape) -> Tensor:
    """Invert :func:`flatten`; the result is a channels-last view."""
    if len(shape) == 1:
        return flat
    channels, height, width = shape
    return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)


def to_working_layout(edge: Edge, weight: Tensor) -> Tensor:
    """Convert a layer's ``weight`` to the layout of the functions here: linear columns in the order of :func:`flatten`."""
    if edge.is_convolution or len(edge.below) == 1:
        return weight
    return weight.view(-1, *edge.below).permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def to_layer_layout(edge: Edge, weight: Tensor) -> Tensor:
    """Invert :func:`to_working_layout`."""
    if edge.is_convolution or len(edge.below) == 1:
        return weight
    channels, height, width = edge.below
    return weight.view(-1, height, width, channels).permute(0, 3, 1, 2).reshape(weight.shape[0], -1)


@contextmanager
def _windows_do_not_overlap() -> Iterator[None]:
    """Allow the adjoint on CUDA in deterministic mode: torch refuses it because windows may overlap, but these do not."""
    strict = torch.are_deterministic_algorithms_enabled()
    if not strict:
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
