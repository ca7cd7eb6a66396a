"""Gradients from two states of the network: the difference of two derivatives of the primitive function.

The two derivatives are large and nearly equal. In float32, subtracting them loses a tenth of the first layer's gradient in the
paper's ConvNet. Subtracting the states first, ``a2 b2 - a1 b1 = a2 (b2 - b1) + (a2 - a1) b1``, is algebraically the same and
keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.network import Network, score_error
from altprop.nn.energy.edges import (
    Edge,
    Routing,
    bias_gradient,
    convolve,
    flatten,
    pool,
    to_layer_layout,
    unpool,
    weight_gradient,
)
from altprop.nn.energy.products import outer_products

Gradients = dict[str, Tensor]
"""Gradients of effective weights in the layout of the layers, named ``layers.<i>.weight``, ``layers.<i>.bias`` and
``feedback.<i>.weight``."""
Moves = tuple[Tensor | None, Tensor | None]
"""How far the states below and above an edge moved from one side of a contrast to the other; None if that is not computed yet."""


class Side(NamedTuple):
    """One side of a contrast on an edge: the states ``[batch, *shape]`` below and above it."""

    below: Tensor
    above: Tensor


def edge_contrast(
    edge: Edge,
    weight: Tensor,
    bias: Tensor | None,
    upper: Side,
    lower: Side,
    factor: float | Tensor = 1.0,
    routing: Routing | None = None,
    out: Tensor | None = None,
    moves: Moves = (None, None),
) -> Tensor:
    """Return the derivative of ``<up(below), above>`` with respect to the weight at ``upper`` minus that at ``lower``.

    It is summed over the batch and multiplied by ``factor``, which is applied to the states because they have fewer entries than
    the weights. ``routing`` are the pooling positions, if both sides have the same lower state and the positions are known.
    ``out`` is a tensor for the result, used by linear edges. ``moves`` are ``upper`` minus ``lower`` if they are known.
    """
    above = upper.above - lower.above if moves[1] is None else moves[1]
    if upper.below is lower.below:
        if edge.pool == "max" and routing is None:
            _, routing = pool(edge, convolve(edge, upper.below, weight, bias))
        return weight_gradient(edge, upper.below, unpool(edge, above * factor, routing), out)
    moved = upper.below - lower.below if moves[0] is None else moves[0]
    if not edge.is_convolution:
        total = outer_products(torch.mul(lower.above, factor), flatten(moved), out=out)
        return outer_products(above * factor, flatten(upper.below), total)
    below = torch.cat([upper.below, lower.below])
    routing = pool(edge, convolve(edge, below, weight, bias))[1] if edge.pool == "max" else None
    first, second = unpool(edge, torch.cat([upper.above, lower.above]), routing).chunk(2)
    return weight_gradient(edge, torch.cat([upper.below, moved]), torch.cat([first - second, second]) * factor)


def state_contrast(
    network: Network,
    inputs: Tensor,
    upper: Sequence[Tensor],
    lower: Sequence[Tensor],
    fixed: Sequence[Tensor] | None = None,
    *,
    factor: float | Tensor = 1.0,
    same_update: bool = False,
    input_routing: Routing | None = None,
    buffers: Sequence[Tensor | None] | None = None,
) -> Gradients:
    """Return the batch mean of Phi's derivative at ``upper`` minus that at ``lower``, times ``factor``, without the readout.

    In a symmetric network both units of a connection move. In a vector-field network only the receiving unit moves and the
    sending one stays at ``fixed``; with ``same_update`` both move, and the forward and feedback weights of a pair get the mean
    of their gradients (section "EP gradient of vector field models").

    Args:
        network: The network that was relaxed.
        inputs: The mini-batch ``[batch, channels, height, width]``.
        upper: States ``[batch, *shape]`` of the minuend.
        lower: States of the subtrahend.
        fixed: States of the sending units of a vector-field network.
        factor: Multiplies the result.
        same_update: Give both weights of a pair the same update.
        input_routing: Pooling positions of the first edge, if they are known.
        buffers: For every linear forward edge a tensor like its weight, into which the gradient is written.

    Raises:
        ValueError: ``fixed`` is needed and missing.
    """
    separate = network.vector_field and not same_update
    if separate and fixed is None:
        raise ValueError("a vector-field network without same_update needs the fixed state of its contrasts")
    share = factor / inputs.shape[0]
    gradients: Gradients = {}
    moves = [high - low for high, low in zip(upper, lower, strict=True)]
    for index in range(network.num_states):
        edge, weight, bias = network.edges[index], network.weights[index], network.biases[index]
        below = None
        if index == 0:
            sides = Side(inputs, upper[0]), Side(inputs, lower[0])
        elif separate:
            assert fixed is not None
            sides = Side(fixed[index - 1], upper[index]), Side(fixed[index - 1], lower[index])
        else:
            sides, below = (Side(upper[index - 1], upper[index]), Side(lower[index - 1], lower[index])), moves[index - 1]
        routing = input_routing if index == 0 else None
        out = None if buffers is None else buffers[index]
        total = edge_contrast(edge, weight, bias, *sides, share, routing=routing, out=out, moves=(below, moves[index]))
        gradients[f"layers.{index}.weight"] = to_layer_layout(edge, total)
        gradients[f"layers.{index}.bias"] = bias_gradient(edge, moves[index]) * share
    if not network.vector_field:
        return gradients
    for index, feedback in enumerate(network.feedback):
        edge = network.edges[index + 1]
        high = (fixed[index + 1],) * 2 if separate and fixed is not None else (upper[index + 1], lower[index + 1])
        sides = Side(upper[index], high[0]), Side(lower[index], high[1])
        gradients[f"feedback.{index}.weight"] = to_layer_layout(edge, edge_contrast(edge, feedback, None, *sides, share))
    if same_update:
        for index in range(len(network.feedback)):
            forward, backward = f"layers.{index + 1}.weight", f"feedback.{index}.weight"
            gradients[forward] = 0.5 * (gradients[forward] + gradients[backward])
            gradients[backward] = gradients[forward].clone()  # both become a .grad, which is modified in place
    return gradients


def readout_gradient(
    network: Network, states: Sequence[Tensor], one_hot_targets: Tensor, factor: float | Tensor = 1.0
) -> Gradients:
    """Return ``factor`` times the derivative of the batch mean loss with respect to the readout; empty without a readout."""
    if not network.softmax_readout:
        return {}
    error = score_error(network.loss, network.scores(states), one_hot_targets) * (factor / states[-1].shape[0])
    name = f"layers.{len(network.edges) - 1}"
    return {
        f"{name}.weight": to_layer_layout(network.edges[-1], error.t() @ flatten(states[-1])),
        f"{name}.bias": error.sum(dim=0),
    }


def added(terms: Sequence[Mapping[str, Tensor]]) -> Gradients:
    """Return the sum of ``terms``, name by name."""
    total: Gradients = {}
    for gradients in terms:
        for name, gradient in gradients.items():
            total[name] = total[name] + gradient if name in total else gradient
    return total
