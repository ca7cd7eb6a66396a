"""Energy-based networks: layers of states joined by edges, relaxed instead of evaluated (Laborieux et al., 2021).

A network defines its states and weights. How states move, and what a gradient is, is up to the algorithm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, get_args

import torch
from torch import Tensor, nn

from altprop.models.base import InputShape
from altprop.models.checks import list_of_sizes, refuse
from altprop.nn.energy.activations import ACTIVATIONS, ActivationName
from altprop.nn.energy.edges import Edge, Pool, Shape, Skip, convolved, flatten, to_working_layout, up
from altprop.problems import ConfigError, Problem, nearest
from altprop.ranges import ImageSize, Padding, PositiveFloat, PositiveInt, PositiveShare

Layer = nn.Linear | nn.Conv2d
CONVOLUTIONS_PER_STAGE = 3
"""Convolutions of one stage of a residual energy-based network."""


class EnergyModel(nn.Module):
    """Layers ``s_0`` (the input), ``s_1`` … ``s_N`` of states, and a layer of weights into each state.

    ``layers`` are ``W_1 … W_L`` with biases; ``feedback`` are the separate weights ``B_1 … B_(N-1)`` of a vector-field network,
    empty if the network is symmetric.

    Args:
        activation: A name in :data:`~altprop.nn.energy.activations.ACTIVATIONS`.
        softmax_readout: Let the last linear layer only read class scores off ``s_N``, so that ``N = L - 1``. Otherwise ``s_N``
            are the scores and ``N = L``.
        vector_field: Give the feedback weights of their own.
        init_scale: Factor on the initial weights and biases, torch's U(+-1/sqrt(fan_in)); None leaves them unchanged.
        keep_probabilities: Of dropout, for ``s_0 … s_N``; None for no dropout.
        input_shape: Channels, height and width of one input.
        num_classes: Number of class scores.
    """

    def __init__(
        self,
        *,
        activation: ActivationName,
        softmax_readout: bool,
        vector_field: bool,
        init_scale: PositiveFloat | None,
        keep_probabilities: Sequence[PositiveShare] | None,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]
        self.softmax_readout = softmax_readout
        self.vector_field = vector_field
        self.init_scale = init_scale
        self.layers = nn.ModuleList()
        self.feedback = nn.ModuleList()
        self.edges: tuple[Edge, ...] = ()
        self.skips: tuple[Skip, ...] = ()
        self._keep_probabilities = keep_probabilities
        self._feedback_is_transposed = False

    def complete(self) -> None:
        """Rescale the initial parameters and set up dropout; subclasses call this after ``layers``, ``feedback`` and ``edges``.

        Raises ``ConfigError`` if ``keep_probabilities`` do not fit.
        """
        keep = self._keep_probabilities
        refuse(keep_problems(keep, self.num_states))
        self.keep_probabilities = tuple(keep) if keep is not None else (1.0,) * (self.num_states + 1)
        if self.init_scale is not None:
            for layer in (*self.layers, *self.feedback):
                layer.reset_parameters()
                with torch.no_grad():
                    for parameter in layer.parameters():
                        parameter.mul_(self.init_scale)

    @property
    def num_states(self) -> int:
        """``N``, the number of layers of states that move."""
        return len(self.edges) - self.softmax_readout

    @property
    def state_shapes(self) -> tuple[Shape, ...]:
        """The shapes of ``s_1 … s_N`` without the batch."""
        return tuple(edge.above for edge in self.edges[: self.num_states])

    def feedback_weight(self, index: int) -> Tensor:
        """Return the weight from state ``index + 2`` down to ``index + 1`` (1-based), in the layout of ``layers[index + 1]``."""
        if not self.vector_field:
            return self.layers[index + 1].weight  # type: ignore[return-value]
        weight: Tensor = self.feedback[index].weight  # type: ignore[assignment]
        return weight.t() if self._feedback_is_transposed else weight

    def to_feedback_layout(self, gradient: Tensor) -> Tensor:
        """Convert a gradient of :meth:`feedback_weight` to one of the stored parameter."""
        return gradient.t() if self._feedback_is_transposed else gradient

    def primitive(self, inputs: Tensor, states: Sequence[Tensor]) -> Tensor:
        """Return ``Phi`` without the loss, ``[batch]``: the sum over layers of ``<up_l(s_(l-1)), s_l>`` (section "Dynamics").

        Each of :attr:`skips` adds ``strength <s_below, s_above>``.
        ``inputs`` are ``[batch, channels, height, width]``, each of ``states`` is ``[batch, *shape]``. For a vector-field network
        this is the part of the forward weights; such a network has no common ``Phi``.
        """
        total = inputs.new_zeros(inputs.shape[0])
        below = inputs
        for edge, layer, state in zip(self.edges, self.layers, states, strict=False):
            drive, _ = up(edge, below, to_working_layout(edge, layer.weight), layer.bias)  # type: ignore[arg-type]
            total = total + (drive * state).flatten(1).sum(dim=1)
            below = state
        for skip in self.skips:
            total = total + skip.strength * (states[skip.below] * states[skip.above]).flatten(1).sum(dim=1)
        return total

    def scores(self, states: Sequence[Tensor]) -> Tensor:
        """Return class scores ``[batch, classes]``: the last state, or its readout."""
        if not self.softmax_readout:
            return states[-1]
        readout = self.layers[-1]
        weight = to_working_layout(self.edges[-1], readout.weight)  # type: ignore[arg-type]
        return nn.functional.linear(flatten(states[-1]), weight, readout.bias)  # type: ignore[arg-type]


class EnergyMLP(EnergyModel):
    """Fully connected energy-based network: flattened input, states of widths ``hidden``, then the class scores.

    The other arguments are those of :class:`EnergyModel`. Raises ``ConfigError`` for options that do not fit together.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[PositiveInt] = (512,),
        activation: ActivationName = "shifted_sigmoid",
        softmax_readout: bool = False,
        vector_field: bool = False,
        init_scale: PositiveFloat | None = None,
        keep_probabilities: Sequence[PositiveShare] | None = None,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(self._problems({"hidden": hidden, "activation": activation, "softmax_readout": softmax_readout}))
        super().__init__(
            activation=activation,
            softmax_readout=softmax_readout,
            vector_field=vector_field,
            init_scale=init_scale,
            keep_probabilities=keep_probabilities,
            input_shape=input_shape,
            num_classes=num_classes,
        )
        shapes: list[Shape] = [tuple(input_shape), *((width,) for width in (*hidden, num_classes))]
        self.edges = tuple(Edge(below, above) for below, above in pairwise(shapes))
        for edge in self.edges:
            self.layers.append(nn.Linear(prod(edge.below), prod(edge.above)))
        if vector_field:
            self._feedback_is_transposed = True
            for edge in self.edges[1 : self.num_states]:
                self.feedback.append(nn.Linear(prod(edge.above), prod(edge.below), bias=False))
        self.complete()

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from cls._problems(config)
        if isinstance(config.get("hidden"), Sequence):
            yield from keep_problems(
                config.get("keep_probabilities"), num_weight_layers(config) - bool(config.get("softmax_readout"))
            )

    @staticmethod
    def _problems(config: Mapping[str, Any]) -> Iterator[Problem]:
        yield from list_of_sizes("model.hidden", config["hidden"], "model.hidden=[512]")
        yield from activation_problems(config["activation"])
        yield from scale_problems(config.get("init_scale"))
        if config["softmax_readout"] and not config["hidden"]:
            yield Problem(
                "model.softmax_readout", "true without a hidden layer", "the readout needs a state to read", "model.hidden=[512]"
            )


class EnergyConvNet(EnergyModel):
    """Convolutional energy-based network: convolutions with poolings, then fully connected layers and the class scores.

    Raises ``ConfigError`` if the lengths of the lists differ or nothing is left of the images.

    Args:
        channels: Output channels of each convolution.
        kernels: Kernel size of each convolution.
        strides: Stride of each convolution.
        paddings: Padding of each convolution, in pixels per side.
        pools: Pooling after each convolution (2 x 2, stride 2).
        hidden: Widths of the fully connected states.
        activation, softmax_readout, vector_field, init_scale, keep_probabilities: See :class:`EnergyModel`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[PositiveInt] = (32, 64),
        kernels: Sequence[ImageSize] = (5, 5),
        strides: Sequence[ImageSize] = (1, 1),
        paddings: Sequence[Padding] = (0, 0),
        pools: Sequence[Pool] = ("max", "max"),
        hidden: Sequence[PositiveInt] = (),
        activation: ActivationName = "shifted_sigmoid",
        softmax_readout: bool = False,
        vector_field: bool = False,
        init_scale: PositiveFloat | None = None,
        keep_probabilities: Sequence[PositiveShare] | None = None,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        layout = {"channels": channels, "kernels": kernels, "strides": strides, "paddings": paddings, "pools": pools}
        refuse(EnergyConvNet._problems({**layout, "hidden": hidden, "activation": activation}))  # and not those of a subclass
        super().__init__(
            activation=activation,
            softmax_readout=softmax_readout,
            vector_field=vector_field,
            init_scale=init_scale,
            keep_probabilities=keep_probabilities,
            input_shape=input_shape,
            num_classes=num_classes,
        )
        convolutions = _convolution_edges(tuple(input_shape), channels, kernels, strides, paddings, pools)
        shapes = [convolutions[-1].above, *((width,) for width in (*hidden, num_classes))]
        linear = [Edge(below, above) for below, above in pairwise(shapes)]
        self.edges = (*convolutions, *linear)
        for index, edge in enumerate(self.edges):
            self.layers.append(_layer(edge, bias=True))
            if vector_field and 0 < index < self.num_states:
                self.feedback.append(_layer(edge, bias=False))
        self.complete()

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        problems = list(cls._problems(config))
        yield from problems
        if not problems:
            yield from keep_problems(
                config.get("keep_probabilities"), num_weight_layers(config) - bool(config.get("softmax_readout"))
            )

    @staticmethod
    def _problems(config: Mapping[str, Any]) -> Iterator[Problem]:
        for name in ("channels", "kernels", "strides"):
            yield from list_of_sizes(f"model.{name}", config[name], f"model.{name}=[…]")
        yield from list_of_sizes("model.hidden", config["hidden"], "model.hidden=[]")
        yield from activation_problems(config["activation"])
        yield from scale_problems(config.get("init_scale"))
        if not config["channels"]:
            yield Problem("model.channels", "[]", "at least one convolution", "model=eqprop_mlp")
        count = len(config["channels"])
        for name in ("kernels", "strides", "paddings", "pools"):
            if len(config[name]) != count:
                yield Problem(
                    f"model.{name}", f"{len(config[name])} entries", f"one for each of the {count} convolutions in model.channels"
                )
        for value in config["paddings"]:
            if not isinstance(value, int) or value < 0:
                yield Problem("model.paddings", str(value), "whole numbers of at least 0", "model.paddings=[0,…]")
        for value in config["pools"]:
            if value not in get_args(Pool):
                yield Problem(
                    "model.pools",
                    str(value),
                    f"each one of {', '.join(get_args(Pool))}",
                    f"{nearest(str(value), get_args(Pool)) or 'max'}",
                )


def _layer(edge: Edge, *, bias: bool) -> Layer:
    if not edge.is_convolution:
        return nn.Linear(prod(edge.below), prod(edge.above), bias=bias)
    return nn.Conv2d(edge.below[0], edge.above[0], edge.kernel, edge.stride, edge.padding, bias=bias)


def _convolution_edges(
    below: Shape,
    channels: Sequence[PositiveInt],
    kernels: Sequence[ImageSize],
    strides: Sequence[ImageSize],
    paddings: Sequence[Padding],
    pools: Sequence[Pool],
) -> list[Edge]:
    edges: list[Edge] = []
    for width, kernel, stride, padding, pool in zip(channels, kernels, strides, paddings, pools, strict=True):
        size = [convolved(side, kernel, stride, padding) for side in below[1:]]
        size = [side // 2 for side in size] if pool != "none" else size
        if min(size) < 1:
            description = f"nothing is left of images of {below[1]} x {below[2]} after convolution {len(edges) + 1}"
            raise ConfigError(
                [Problem("model.channels", description, "fewer or padded convolutions, fewer poolings", "model.paddings=[1,…]")]
            )
        above = (width, *size)
        edges.append(Edge(below, above, kernel, stride, padding, pool))
        below = above
    return edges


def num_weight_layers(config: Mapping[str, Any]) -> int:
    """Return ``L`` of a model's configuration: convolutions, hidden layers and the class scores."""
    convolutions = len(config.get("channels", ())) + CONVOLUTIONS_PER_STAGE * len(config.get("stages", ()))
    return convolutions + len(config["hidden"]) + 1


def activation_problems(name: object) -> Iterator[Problem]:
    """Yield the problem of an unknown activation."""
    if name not in ACTIVATIONS:
        suggestion = nearest(str(name), ACTIVATIONS) or "shifted_sigmoid"
        yield Problem("model.activation", str(name), f"one of {', '.join(ACTIVATIONS)}", f"model.activation={suggestion}")


def scale_problems(scale: object) -> Iterator[Problem]:
    """Yield the problem of a factor on the initial parameters that is not positive."""
    if isinstance(scale, (int, float)) and scale <= 0:
        yield Problem("model.init_scale", str(scale), "above 0, or null for torch's own", "model.init_scale=null")


def keep_problems(keep: Sequence[float] | None, num_states: int) -> Iterator[Problem]:
    """Yield the problems of keep probabilities that do not fit the input and ``num_states`` layers of states."""
    if keep is None:
        return
    if len(keep) != num_states + 1:
        yield Problem(
            "model.keep_probabilities", f"{len(keep)} entries", f"{num_states + 1}: the input and {num_states} layers of states"
        )
    if not all(isinstance(value, (int, float)) and 0 < value <= 1 for value in keep):
        yield Problem("model.keep_probabilities", str(list(keep)), "probabilities above 0 and up to 1")
