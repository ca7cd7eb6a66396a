"""One time step of the states as in the paper: a pure, differentiable function for every model, loss and dropout mask.

The gradient of the primitive function with respect to a state is known in closed form, so it needs no graph. :mod:`.relaxation`
computes the same step without allocating memory; this module is what is differentiated, and the reference in tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.nn.energy.edges import Routing, convolve, down, pool, up


@dataclass(frozen=True)
class Nudge:
    """The pull of the loss on the last state: ``- strength * dl/ds_N``.

    ``targets`` one-hot ``[batch, classes]``, ``strength`` (the paper's beta) ``[batch, 1]``.
    """

    targets: Tensor
    strength: Tensor


@dataclass(frozen=True)
class Masks:
    """Dropout masks of one mini-batch: ``0`` or ``1/p`` for every entry of input and states, the same in all phases."""

    inputs: Tensor
    states: tuple[Tensor, ...]


def input_drive(network: Network, inputs: Tensor) -> tuple[Tensor, Routing | None]:
    """Return ``up_1`` of the (masked) input. It is constant in a mini-batch, so it is computed once for all phases."""
    return up(network.edges[0], inputs, network.weights[0], network.biases[0])


def potentials(
    network: Network, drive: Tensor, states: Sequence[Tensor], nudge: Nudge | None = None, masks: Masks | None = None
) -> list[Tensor]:
    """Return ``h_1 … h_N``, to which the activation is applied (section "Dynamics"; with ``masks``, "Dropout").

    The potential of a hidden layer is its bottom-up drive plus its top-down drive; that of the last layer is its bottom-up drive
    minus the nudge. Skips add what comes from the states at their other ends. ``drive`` is the bottom-up drive of the first
    layer. One convolution per edge gives both the drive above it
    and the positions of the max pooling for the drive below it.
    """
    active = states if masks is None else [mask * state for mask, state in zip(masks.states, states, strict=True)]
    result: list[Tensor] = []
    ahead = drive
    for index, state in enumerate(active):
        total = ahead
        if index + 1 < len(active):
            edge, feedback = network.edges[index + 1], network.feedback[index]
            ahead, routing = up(edge, state, network.weights[index + 1], network.biases[index + 1])
            if network.vector_field and edge.pool == "max":
                _, routing = pool(edge, convolve(edge, state, feedback, None))
            total = total + down(edge, active[index + 1], feedback, routing)
        for skip in network.skips:
            if index in (skip.below, skip.above):
                total = total + skip.strength * active[skip.above if index == skip.below else skip.below]
        if masks is not None:
            total = total * masks.states[index]
        result.append(total)
    if nudge is not None:
        result[-1] = result[-1] - pull(network, states, nudge, masks)
    return result


def pull(network: Network, states: Sequence[Tensor], nudge: Nudge, masks: Masks | None = None) -> Tensor:
    """Return ``strength * dl/ds_N`` ``[batch, *shape]``. A readout sees the masked state, other losses the state itself."""
    if masks is None or not network.softmax_readout:
        error = network.output_error(states, nudge.targets)
    else:
        error = masks.states[-1] * network.output_error([masks.states[-1] * states[-1]], nudge.targets)
    return nudge.strength.view(-1, *(1,) * (error.dim() - 1)) * error


def step(
    network: Network, drive: Tensor, states: Sequence[Tensor], nudge: Nudge | None = None, masks: Masks | None = None
) -> States:
    """Take one synchronous time step: every new state depends on the old states only."""
    return [
        activation(potential if factor == 1.0 else factor * potential)
        for activation, factor, potential in zip(
            network.activations, network.factors, potentials(network, drive, states, nudge, masks), strict=True
        )
    ]
