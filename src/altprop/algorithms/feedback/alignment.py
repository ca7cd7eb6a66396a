"""Feedback alignment: the backward pass goes through fixed random weights, or through the signs of the weights only.

Lillicrap, Cownden, Tweed and Akerman (2016), *Random synaptic feedback weights support error backpropagation for deep learning*,
Nature Communications 7, 13276. Sign concordance: Moskovitz, Litwin-Kumar and Abbott (2018), *Feedback alignment in deep
convolutional networks*, arXiv 1812.06488.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import AlgorithmOptions
from altprop.algorithms.context import Capabilities
from altprop.algorithms.feedback.paths import Layer, feedback_paths
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.nn.weights.layers import weight_layers
from altprop.problems import ConfigError, Problem

Mode = Literal["random", "uniform_sign", "batchwise_random_sign", "fixed_random_sign"]
DRAWN_ONCE = ("random", "fixed_random_sign")
"""The modes whose random numbers are drawn at the start and are part of a checkpoint."""


def layers_with_feedback(model: nn.Module) -> list[Layer]:
    """Return the linear layers and convolutions of ``model`` in registration order.

    Raises ``ConfigError`` if it has other layers with weights: attention and recurrent layers use theirs inside of kernels that
    know no other weights for the backward pass.
    """
    layers = weight_layers(model)
    others = [layer for layer in layers if layer.roles & {"attention", "recurrent"}]
    if others:
        description = f"has no feedback weights for {', '.join(layer.name for layer in others)}"
        allowed = "models whose weights are those of linear layers and convolutions"
        raise ConfigError([Problem("algorithm", description, allowed, "algorithm=direct_feedback_alignment")])
    return [layer.module for layer in layers if isinstance(layer.module, nn.Linear | _ConvNd)]


def sign_concordant(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Return feedback with the signs of ``weight`` and the absolute values ``magnitude``, which may be a scalar."""
    return weight.sign().mul_(magnitude)


class FeedbackAlignment(Backprop):
    """Backprop in which every linear layer and convolution passes gradients to the layer before through feedback weights ``B``.

    ``B`` has the shape of the weight ``W``; with ``B = W`` this is backprop. Everything else in the model, such as normalization,
    activations, pooling and shortcuts, passes gradients as it does in backprop. ``s`` is the root mean square of the layer's
    initial weights, and the entries of ``R`` are normal with standard deviation ``s``:

    - ``random``: ``B = R``, drawn at the start and fixed (Lillicrap et al.);
    - ``uniform_sign``: ``B = s sign(W)`` with the current weights (Moskovitz et al.: uSF);
    - ``batchwise_random_sign``: ``B = |R| sign(W)`` with a new ``R`` in every step (brSF);
    - ``fixed_random_sign``: ``B = |R| sign(W)`` with ``R`` drawn at the start (frSF).

    Weights that a weights rule sets to zero have no sign, so sign-concordant feedback is zero there as well.

    Args:
        mode: See above.
        options: Arguments of :class:`~altprop.algorithms.base.Algorithm`.
    """

    capabilities: ClassVar[Capabilities] = dataclasses.replace(Backprop.capabilities, compile=False, cuda_graph=False)

    def __init__(self, *, mode: Mode = "random", **options: Unpack[AlgorithmOptions]) -> None:
        problems = list(_problems(mode))
        if problems:
            raise ConfigError(problems)
        super().__init__(**options)
        self.mode = mode

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.layers = layers_with_feedback(self.model)
        with torch.no_grad():
            self.scales = [layer.weight.square().mean().sqrt() for layer in self.layers]
        self.magnitudes = self.scales if self.mode == "uniform_sign" else []
        if self.mode in DRAWN_ONCE:  # on the CPU, so that it is the same on every device
            generator, cpu = self.context.generator("feedback"), torch.device("cpu")
            self.magnitudes = [self._draw(number, generator, cpu) for number in range(len(self.layers))]
        elif self.mode == "batchwise_random_sign":
            self.context.device_generator("feedback")  # so that it exists before a checkpoint is restored
        self._of_this_step: dict[int, Tensor] = {}
        """The magnitudes that are drawn again in every step, of the layers that have asked for them."""
        return super().build(optimizer, schedule)

    def _draw(self, number: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draw ``R`` of layer ``number``, or ``|R|`` for sign-concordant feedback."""
        shape, scale = self.layers[number].weight.shape, self.scales[number]
        drawn = torch.randn(shape, generator=generator, device=device, dtype=scale.dtype).to(scale.device).mul_(scale)
        return drawn if self.mode == "random" else drawn.abs_()

    def feedback(self, number: int, weight: Tensor) -> Tensor:
        """Return ``B`` of layer ``number``, in registration order, if its effective weight is ``weight``."""
        if self.mode == "batchwise_random_sign":
            if number not in self._of_this_step:  # the first layer never asks: in a perceptron it has most of the weights
                drawn = self._draw(number, self.context.device_generator("feedback"), self.context.device)
                self._of_this_step[number] = drawn
            return sign_concordant(weight, self._of_this_step[number])
        magnitude = self.magnitudes[number]
        return magnitude if self.mode == "random" else sign_concordant(weight, magnitude)

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self._of_this_step.clear()
        with feedback_paths(self.layers, self.feedback):
            return super().update(inputs, targets)

    def state_dict(self) -> dict[str, Any]:
        feedback = {"scales": self.scales, "magnitudes": self.magnitudes if self.mode in DRAWN_ONCE else []}
        return {**super().state_dict(), "feedback": feedback}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        scales, magnitudes = (
            [value.to(self.context.device, copy=True) for value in state["feedback"][name]] for name in ("scales", "magnitudes")
        )
        self.scales = scales
        self.magnitudes = scales if self.mode == "uniform_sign" else magnitudes

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problem of an unknown mode."""
        yield from _problems(config.get("mode", "random"))


def _problems(mode: object) -> Iterator[Problem]:
    if mode not in get_args(Mode):
        yield Problem("algorithm.mode", str(mode), " | ".join(get_args(Mode)), "algorithm.mode=random")
