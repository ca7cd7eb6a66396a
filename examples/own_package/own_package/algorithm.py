"""Weight perturbation: the gradient is estimated from the loss at perturbed weights, without a backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from altprop.algorithms.base import Algorithm, AlgorithmOptions
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.problems import Problem


class WeightPerturbation(Algorithm):
    """Estimates the gradient from random directions ``v`` with independent standard normal entries.

    ``g = 1/n sum_i v_i (L(w + s v_i) - L(w - s v_i)) / 2 s`` is unbiased for a quadratic loss. Its variance grows with
    the number of weights and falls with the number ``n`` of directions, so it is for small networks.

    Args:
        directions: Number of directions per step, ``n``. A step takes ``2 n + 1`` forward passes.
        scale: Size of a perturbation, ``s``.
        options: Arguments of the base class.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(ddp=True, clip=True)

    def __init__(self, *, directions: int = 16, scale: float = 1e-3, **options: Unpack[AlgorithmOptions]) -> None:
        super().__init__(**options)
        self.directions = directions
        self.scale = scale

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.optimization = self.optimizer_step(self.model.parameters(), optimizer, schedule)
        return [self.optimization]

    @torch.no_grad()
    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        scores = self.model(inputs)
        loss = self.loss(scores, targets)
        parameters = self.optimization.parameters
        weights = [parameter.clone() for parameter in parameters]
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for _ in range(self.directions):
            direction = [self._normal(parameter) for parameter in parameters]
            losses = []
            for scale in (self.scale, -self.scale):
                for parameter, weight, entries in zip(parameters, weights, direction, strict=True):
                    parameter.copy_(weight + scale * entries)
                losses.append(self.loss(self.model(inputs), targets))
            slope = (losses[0] - losses[1]) / (2 * self.scale * self.directions)
            for gradient, entries in zip(gradients, direction, strict=True):
                gradient += slope * entries
        for parameter, weight, gradient in zip(parameters, weights, gradients, strict=True):
            parameter.copy_(weight)
            parameter.grad = gradient
        self.optimization.step()  # averages over processes, clips, applies the weights rule, advances the schedule
        return {"loss": loss, **self.measured(scores, targets)}

    def _normal(self, parameter: Tensor) -> Tensor:
        # a random stream of its own: the same on every process, and part of every checkpoint
        generator = self.context.generator("perturbation")
        return torch.randn(parameter.shape, generator=generator).to(parameter)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each option out of range."""
        for name in ("directions", "scale"):
            if config.get(name, 1) <= 0:
                yield Problem(f"algorithm.{name}", str(config[name]), "a number above 0")
