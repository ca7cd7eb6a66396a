"""The network that a phase relaxes: a snapshot of a model, taken once per mini-batch, and the loss that nudges it.

The nudge is the gradient of the loss with respect to the last state. Every time step of a phase needs it, so it is written in
closed form instead of being differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from altprop.models.energy import EnergyModel
from altprop.nn.energy.activations import IDENTITY, Activation
from altprop.nn.energy.edges import Edge, Skip, flatten, to_working_layout, unflatten

LossName = Literal["mse", "cross_entropy"]

States = list[Tensor]
"""``s_1 … s_N``, each ``[batch, *shape]``, in the memory formats of :meth:`Network.memory_format`."""


def mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the batch mean of ``1/2 sum_k (o_k - y_k)^2``, a sum over classes with one-hot targets (section "Loss functions").

    ``scores`` ``[batch, classes]``, ``targets`` ``[batch]`` integers.
    """
    return 0.5 * (scores - one_hot(targets, scores)).square().sum(dim=1).mean()


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the batch mean of ``-log softmax(o)_y``; shapes as in :func:`mse`."""
    return functional.cross_entropy(scores, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "cross_entropy": cross_entropy}


def score_error(loss: LossName, scores: Tensor, one_hot_targets: Tensor) -> Tensor:
    """Return the derivative of each sample's loss with respect to its scores, ``[batch, classes]``."""
    prediction = scores if loss == "mse" else torch.softmax(scores, dim=1)
    return prediction - one_hot_targets


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Return ``targets`` ``[batch]`` one-hot encoded, with the shape, type and device of ``like`` ``[batch, classes]``."""
    return torch.zeros_like(like).scatter_(1, targets.unsqueeze(1), 1.0)


@dataclass(frozen=True)
class Network:
    """A snapshot of an energy-based model: effective weights in the layout in which they are used.

    Index ``i`` of a tuple belongs to layer ``i + 1`` of the paper. ``feedback[i]`` carries state ``i + 2`` down to state
    ``i + 1`` (both 1-based); in a symmetric network it is ``weights[i + 1]`` itself. ``factors`` multiply the potentials: they
    are the keep probabilities of dropout. ``channels_last`` is the memory format of convolutions. On a CPU, the kernels for
    contiguous tensors are as fast and round several times better.
    """

    edges: tuple[Edge, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    feedback: tuple[Tensor, ...]
    activations: tuple[Activation, ...]
    factors: tuple[float, ...]
    loss: LossName
    softmax_readout: bool
    vector_field: bool
    channels_last: bool = False
    skips: tuple[Skip, ...] = ()

    @property
    def num_states(self) -> int:
        """``N``, the number of layers of states."""
        return len(self.activations)

    def zeros(self, batch: int) -> States:
        """Return states of exactly zero, from which a free phase starts."""
        like = self.biases[0]
        states = (like.new_zeros(batch, *edge.above) for edge in self.edges[: self.num_states])
        return [self.arranged(state, index) for index, state in enumerate(states)]

    def memory_format(self, index: int) -> torch.memory_format:
        """Return the memory format of state ``index`` of a convolution.

        A state below a linear edge is channels-last, because :func:`.edges.flatten` is a view of it then.
        """
        below_convolution = index + 1 < len(self.edges) and self.edges[index + 1].is_convolution
        return torch.contiguous_format if below_convolution and not self.channels_last else torch.channels_last

    def arranged(self, state: Tensor, index: int) -> Tensor:
        """Return ``state`` in the memory format of state ``index``; a copy only if it is in another one."""
        return state.contiguous(memory_format=self.memory_format(index)) if state.dim() == 4 else state

    def scores(self, states: Sequence[Tensor]) -> Tensor:
        """Return the class scores ``[batch, classes]``: the last state, or its readout if there is one."""
        if not self.softmax_readout:
            return states[-1]
        return torch.addmm(self.biases[-1], flatten(states[-1]), self.weights[-1].t())

    def output_error(self, states: Sequence[Tensor], one_hot_targets: Tensor) -> Tensor:
        """Return ``dl/ds_N`` of every sample, in the shape of ``s_N``."""
        error = score_error(self.loss, self.scores(states), one_hot_targets)
        if not self.softmax_readout:
            return error
        return unflatten(error @ self.weights[-1], self.edges[-1].below)


def snapshot(model: EnergyModel, loss: LossName, *, activate_output: bool = False, channels_last: bool = False) -> Network:
    """Return the current state of ``model`` as a network. It is differentiable in the weights if gradients are enabled.

    With the cross-entropy and without a readout, the scores are linear. ``activate_output`` applies the activation to them
    anyway, as the published evaluation does.
    """
    num_states = model.num_states
    linear_output = loss == "cross_entropy" and not model.softmax_readout and not activate_output
    keep = model.keep_probabilities
    # The published dropout gives the last layer the factor of the layer before it, unless the output is linear.
    last_factor = keep[num_states] if linear_output else keep[num_states - 1]
    weights = tuple(
        _working(edge, layer.weight, channels_last)  # type: ignore[arg-type]
        for edge, layer in zip(model.edges, model.layers, strict=True)
    )
    feedback = weights[1:num_states]
    if model.vector_field:
        feedback = tuple(
            _working(model.edges[index + 1], model.feedback_weight(index), channels_last) for index in range(num_states - 1)
        )
    return Network(
        edges=model.edges,
        weights=weights,
        biases=tuple(layer.bias for layer in model.layers),  # type: ignore[misc]
        feedback=feedback,
        activations=(model.activation,) * (num_states - 1) + (IDENTITY if linear_output else model.activation,),
        factors=(*keep[1:num_states], last_factor),
        loss=loss,
        softmax_readout=model.softmax_readout,
        vector_field=model.vector_field,
        channels_last=channels_last,
        skips=model.skips,
    )


def detached(network: Network) -> Network:
    """Return ``network`` without a graph to the parameters."""
    return replace(
        network,
        weights=tuple(weight.detach() for weight in network.weights),
        biases=tuple(bias.detach() for bias in network.biases),
        feedback=tuple(weight.detach() for weight in network.feedback),
    )


def lowered(network: Network, dtype: torch.dtype) -> Network:
    """Return ``network`` with convolutions computed in ``dtype``; states and drives keep their own type."""

    def cast(edge: Edge, weight: Tensor) -> Tensor:
        return weight.to(dtype) if edge.is_convolution else weight

    weights = tuple(map(cast, network.edges, network.weights))
    if not network.vector_field:
        return replace(network, weights=weights, feedback=weights[1 : network.num_states])
    return replace(network, weights=weights, feedback=tuple(map(cast, network.edges[1:], network.feedback)))


def _working(edge: Edge, weight: Tensor, channels_last: bool) -> Tensor:
    weight = to_working_layout(edge, weight)
    if not edge.is_convolution:
        return weight
    return weight.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
