"""What a relaxation needs of a model, taken once per mini-batch: effective weights in the layout in which they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.costs import LossName, score_error
from altprop.models.energy import EnergyModel
from altprop.nn.energy.activations import IDENTITY, Activation
from altprop.nn.energy.edges import Edge, flatten, to_working_layout, unflatten

States = list[Tensor]
"""``s_1 … s_N``, each ``[batch, *shape]``; those of convolutions in the channels-last memory format."""


@dataclass(frozen=True)
class Network:
    """A snapshot of an energy-based model. Index ``i`` of a tuple belongs to layer ``i + 1`` of the paper.

    ``feedback[i]`` carries state ``i + 1`` down to state ``i`` and is ``weights[i + 1]`` itself in a symmetric network.
    ``factors`` multiply the potentials: the keep probabilities of dropout.
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

    @property
    def num_states(self) -> int:
        """``N``, the number of layers that move."""
        return len(self.activations)

    def zeros(self, batch: int) -> States:
        """States of exactly zero, from which a free phase starts."""
        like = self.biases[0]
        flat = (like.new_zeros(batch, edge.above[0] * _area(edge.above)) for edge in self.edges)
        return [unflatten(state, edge.above) for state, edge in zip(flat, self.edges[: self.num_states], strict=False)]

    def scores(self, states: Sequence[Tensor]) -> Tensor:
        """Class scores ``[batch, classes]``: the last state, or the readout of it."""
        if not self.softmax_readout:
            return states[-1]
        return torch.addmm(self.biases[-1], flatten(states[-1]), self.weights[-1].t())

    def output_error(self, states: Sequence[Tensor], one_hot_targets: Tensor) -> Tensor:
        """``dl/ds_N`` of every sample, in the shape of ``s_N``."""
        error = score_error(self.loss, self.scores(states), one_hot_targets)
        if not self.softmax_readout:
            return error
        return unflatten(error @ self.weights[-1], self.edges[-1].below)


def snapshot(model: EnergyModel, loss: LossName, *, activate_output: bool = False) -> Network:
    """The network that ``model`` is now. Differentiable in the weights where gradients are enabled.

    Without a readout, scores that meet the cross-entropy are linear; ``activate_output`` applies the activation to them all the
    same, as the published evaluation does.
    """
    num_states = model.num_states
    linear_output = loss == "cross_entropy" and not model.softmax_readout and not activate_output
    keep = model.keep_probabilities
    # The published dropout takes the last layer's factor from the layer before, unless the output is linear.
    last_factor = keep[num_states] if linear_output else keep[num_states - 1]
    weights = tuple(
        _working(edge, layer.weight)  # type: ignore[arg-type]
        for edge, layer in zip(model.edges, model.layers, strict=True)
    )
    feedback = weights[1:num_states]
    if model.vector_field:
        feedback = tuple(_working(model.edges[index + 1], model.feedback_weight(index)) for index in range(num_states - 1))
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
    )


def detached(network: Network) -> Network:
    """``network`` without a graph to the parameters."""
    return replace(
        network,
        weights=tuple(weight.detach() for weight in network.weights),
        biases=tuple(bias.detach() for bias in network.biases),
        feedback=tuple(weight.detach() for weight in network.feedback),
    )


def lowered(network: Network, dtype: torch.dtype) -> Network:
    """``network`` with the weights of its convolutions in ``dtype``: they are then computed in it, states and drives are not."""

    def cast(edge: Edge, weight: Tensor) -> Tensor:
        return weight.to(dtype) if edge.is_convolution else weight

    weights = tuple(map(cast, network.edges, network.weights))
    if not network.vector_field:
        return replace(network, weights=weights, feedback=weights[1 : network.num_states])
    return replace(network, weights=weights, feedback=tuple(map(cast, network.edges[1:], network.feedback)))


def _working(edge: Edge, weight: Tensor) -> Tensor:
    weight = to_working_layout(edge, weight)
    return weight.contiguous(memory_format=torch.channels_last) if edge.is_convolution else weight


def _area(shape: tuple[int, ...]) -> int:
    return shape[1] * shape[2] if len(shape) == 3 else 1
