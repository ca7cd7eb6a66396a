"""Backpropagation through time: the gradient that equilibrium propagation estimates (section "BPTT")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.base import EnergyAlgorithm, EnergyOptions, at_least_one, masked
from altprop.algorithms.equilibrium_propagation.dynamics import input_drive, step
from altprop.algorithms.equilibrium_propagation.network import lowered
from altprop.problems import Problem
from altprop.ranges import Iterations


class BackpropThroughTime(EnergyAlgorithm):
    """A free phase whose last steps are differentiated; the positions of max poolings are constants.

    ``update_order`` and ``tolerance`` apply to the first ``free_steps - differentiated_steps`` steps. Differentiated steps are
    always synchronous.

    Args:
        differentiated_steps: Number of steps that are differentiated, the paper's T2; at most ``free_steps``.
        **options: Those of :class:`EnergyAlgorithm`.
    """

    def __init__(self, *, differentiated_steps: Iterations = 4, **options: Unpack[EnergyOptions]) -> None:
        super().__init__(**options)
        self.differentiated_steps = differentiated_steps

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        masks = self.draw_masks(inputs)
        with torch.no_grad():
            relaxation = self.relaxation(self.network(), inputs, masks)
            states = self.free_phase(relaxation, self.free_steps - self.differentiated_steps)
        network = self.network()
        dynamics = lowered(network, torch.bfloat16) if self.context.precision == "bf16" else network
        drive, _ = input_drive(dynamics, relaxation.inputs)
        for _ in range(self.differentiated_steps):
            states = step(dynamics, drive, states, masks=masks)
        metrics = self.fit(network.scores(masked(states, masks)), targets)
        self.optimization.zero_grad()
        self.optimization.backward(metrics["loss"])
        self.optimization.step()
        self.remember([state.detach() for state in states])
        metrics["loss"] = metrics["loss"].detach()
        if self.tolerance is not None:
            metrics["free_steps"] = torch.full((), float(relaxation.steps_taken), device=inputs.device)
        return metrics

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem if more steps are differentiated than there are."""
        yield from super().check(config, root)
        yield from at_least_one(config, "differentiated_steps")
        free, differentiated = config["free_steps"], config["differentiated_steps"]
        if isinstance(free, int) and isinstance(differentiated, int) and differentiated > free:
            yield Problem(
                "algorithm.differentiated_steps",
                str(differentiated),
                f"at most algorithm.free_steps, which is {free}",
                f"algorithm.free_steps={differentiated}",
            )
