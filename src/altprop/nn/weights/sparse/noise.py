"""Gaussian noise in the gradients of active weights, which turns SGD into a sampler (DeepR, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import torch

from altprop.nn.weights.base import KEY
from altprop.nn.weights.sparse.mask import MaskedWeights
from altprop.nn.weights.tables import as_table, at_epoch, table_problems
from altprop.problems import Problem
from altprop.ranges import PositiveFloat, Table


class LangevinNoise:
    """``grad += N(0, sigma^2) m`` with ``sigma = sqrt(2 eta T(epoch))``; ``temperature`` T is a table over epochs.

    The noise is part of the gradient, so the learning rate multiplies it and momentum filters it.
    """

    def __init__(self, *, eta: PositiveFloat, temperature: Table) -> None:
        self.eta = eta
        self.temperature = as_table(temperature)

    def sigma(self, epoch: int) -> float:
        """Return the standard deviation of the noise in ``epoch``."""
        return sqrt(2.0 * self.eta * at_epoch(self.temperature, epoch))

    def add(self, weights: MaskedWeights, trained: set[int], epoch: int, generator: torch.Generator) -> None:
        """Add noise to ``.grad`` of the tensors that are not completely dense and whose parameter's ``id`` is in ``trained``."""
        sigma = self.sigma(epoch)
        if sigma == 0.0:
            return
        on_host = weights.device.type == "cpu"
        active = weights.active_units().split(weights.active) if on_host else []
        for place, (weight, masking) in enumerate(zip(weights.weights, weights.maskings)):
            if id(weight) not in trained or weight.grad is None or weights.active[place] == weights.layout.sizes[place]:
                continue
            if on_host:
                # drawing for the active weights only gives the same distribution, and drawing is what takes the time
                positions = active[place] - weights.layout.offsets[place]
                noise = torch.randn(len(positions), generator=generator, dtype=weight.dtype) * sigma
                weight.grad.view(-1).index_add_(0, positions, noise)
            else:
                noise = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
                weight.grad.addcmul_(noise, masking.broadcast(), value=sigma)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``noise``."""
        key = f"{KEY}.noise"
        yield from table_problems(f"{key}.temperature", config.get("temperature"))
        eta = config.get("eta")
        if isinstance(eta, (int, float)) and eta <= 0:
            yield Problem(f"{key}.eta", str(eta), "a positive number", f"{key}.eta=0.01")
