"""Sections 2.1 to 2.5 written with lists, sets and loops, which the implementation with flat buffers must reproduce step by step.

Growth takes the lowest free positions, because random positions would differ between the two.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from altprop.nn.weights.sparse.grow import Grow
from altprop.nn.weights.sparse.mask import MaskedWeights


class LowestFree(Grow):
    """Activates the free units with the lowest indices."""

    def select(self, weights: MaskedWeights, taken, counts, free, generator) -> Tensor:
        grown = []
        for low, high, count in zip(weights.layout.offsets, weights.layout.offsets[1:], counts):
            grown += [place for place in range(low, high) if not taken[place]][:count]
        return torch.tensor(grown, dtype=torch.int64)


class ReferenceNet:
    """A plain copy of a model, trained by hand, some of whose weights are multiplied by masks before every forward pass."""

    def __init__(self, model: nn.Module, names: list[str], masks: list[Tensor], **sgd: float) -> None:
        self.model = copy.deepcopy(model)
        self.names = names
        self.theta = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.masks = dict(zip(names, (mask.clone() for mask in masks)))
        self.momentum: dict[str, Tensor] = {}
        self.sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, **sgd}
        self.threshold = 1e-3
        self.signs: dict[str, Tensor] = {}

    def gradients(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the gradient with respect to the dense storage: mask times gradient of the effective weight."""
        effective = {
            name: (theta * self.masks[name] if name in self.masks else theta.clone()).requires_grad_()
            for name, theta in self.theta.items()
        }
        loss = cross_entropy(torch.func.functional_call(self.model.train(), effective, (inputs,)), targets)
        loss.backward()
        return {name: value.grad * self.masks[name] if name in self.masks else value.grad for name, value in effective.items()}

    def sgd_step(self, gradients: dict[str, Tensor]) -> None:
        """SGD with Nesterov momentum, by hand (section 5.1)."""
        for name, gradient in gradients.items():
            full = gradient + self.sgd["weight_decay"] * self.theta[name]
            before = self.momentum.get(name)
            self.momentum[name] = full if before is None else self.sgd["momentum"] * before + full
            self.theta[name] = self.theta[name] - self.sgd["lr"] * (full + self.sgd["momentum"] * self.momentum[name])

    def units(self, name: str, granularity: int) -> list[tuple[int, ...]]:
        """Return the index of every unit of a tensor, in order."""
        shape = self.theta[name].shape
        leading = shape if len(shape) == 2 else shape[:granularity]
        return list(itertools.product(*(range(length) for length in leading)))

    def update(self, granularity: int, mode: str, *, amount: float, across: bool, generator: torch.Generator) -> int:
        """Perform one structure update; ``mode`` is threshold, fraction or sign. Returns the number of pruned units."""
        pruned, free, survivors = {}, {}, {}
        for name in self.names:
            theta, mask = self.theta[name], self.masks[name]
            units = self.units(name, granularity)
            alive = [unit for unit in units if mask[unit].max() > 0]
            free[name] = [unit for unit in units if mask[unit].max() == 0]
            if mode == "threshold":
                gone = [unit for unit in alive if float(theta[unit].abs().mean()) < self.threshold]
                if alive and len(gone) == len(alive):
                    gone = gone[1:]
            elif mode == "fraction":
                order = sorted(alive, key=lambda unit: (float(theta[unit].abs().mean()), units.index(unit)))
                gone = order[: int(amount * len(alive)) + 1]
            else:
                sign = theta.sign()
                gone = [unit for unit in alive if sign[unit] * self.signs[name][unit] < -0.5] if free[name] else []
                self.signs[name] = sign
            for unit in gone:
                mask[unit] = 0.0
            self.theta[name] = theta * mask
            pruned[name], survivors[name] = gone, len(alive) - len(gone)
        total = sum(len(gone) for gone in pruned.values())
        counts = {name: min(len(pruned[name]), len(free[name])) for name in self.names}
        if across:
            counts = dict.fromkeys(self.names, 0)
            while (rest := total - sum(counts.values())) > 0:
                shares = [survivors[name] / sum(survivors.values()) for name in self.names]
                requests = [round(share * rest) for share in shares]
                difference = rest - sum(requests)
                if difference:
                    place = int(torch.randint(len(requests), (), generator=generator))
                    requests[place] = max(0, requests[place] + difference)
                for name, request in zip(self.names, requests):
                    counts[name] += min(request, len(free[name]) - counts[name])
        for name in self.names:  # a tensor without an active unit gets one of those of the tensor that gets most
            if survivors[name] + counts[name] == 0 and free[name]:
                giver = max(self.names, key=lambda other: counts[other])
                counts[giver] -= 1 if survivors[giver] + counts[giver] > 1 and counts[giver] else 0
                counts[name] = 1
        for name in self.names:
            for unit in free[name][: counts[name]]:
                self.masks[name][unit] = 1.0
        if mode == "threshold":
            if total > 1.1 * amount:
                self.threshold /= 2
            elif total < 0.9 * amount:
                self.threshold *= 2
        return total

    def add_penalty_and_noise(self, gradients, *, l1: float, sigma: float, generator: torch.Generator) -> None:
        """Add L1 of the dense storage, then Gaussian noise at active entries."""
        for name in self.names:
            gradients[name] = gradients[name] + l1 * self.theta[name].sign()
        for name in self.names:
            where = self.masks[name].flatten().nonzero().flatten()
            if sigma and len(where) < self.masks[name].numel():
                noise = torch.zeros(self.masks[name].numel(), dtype=self.theta[name].dtype)
                noise[where] = torch.randn(len(where), generator=generator, dtype=noise.dtype) * sigma
                gradients[name] = gradients[name] + noise.view_as(self.theta[name])


def langevin_sigma(eta: float, temperature: float) -> float:
    return math.sqrt(2 * eta * temperature)
