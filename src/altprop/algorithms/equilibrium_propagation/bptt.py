"""Backpropagation through time: the gradient that equilibrium propagation estimates (Laborieux et al. 2021, BPTT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.common import EnergyAlgorithm, FreeStart, at_least_one, masked
from altprop.algorithms.equilibrium_propagation.costs import LossName
from altprop.algorithms.equilibrium_propagation.dynamics import input_drive, step
from altprop.algorithms.equilibrium_propagation.network import lowered
from altprop.algorithms.equilibrium_propagation.relaxation import UpdateOrder
from altprop.nn.weights.base import WeightsRule
from altprop.problems import Problem


class BackpropThroughTime(EnergyAlgorithm):
    """A free phase whose last ``differentiated_steps`` (T2) are differentiated; the positions of max poolings are constants.

    Its first ``free_steps - differentiated_steps`` steps follow ``update_order`` and ``tolerance``; those that are
    differentiated are always synchronous.
    """

    def __init__(
        self,
        *,
        loss: LossName = "mse",
        free_steps: int = 20,
        differentiated_steps: int = 4,
        learning_rates: Sequence[float] | None = None,
        weight_decays: Sequence[float] | None = None,
        update_order: UpdateOrder = "synchronous",
        tolerance: float | None = None,
        free_start: FreeStart = "zeros",
        activate_output_in_evaluation: bool = False,
        weights: WeightsRule | None = None,
    ) -> None:
        super().__init__(
            loss=loss,
            free_steps=free_steps,
            learning_rates=learning_rates,
            weight_decays=weight_decays,
            update_order=update_order,
            tolerance=tolerance,
            free_start=free_start,
            activate_output_in_evaluation=activate_output_in_evaluation,
            weights=weights,
        )
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
        """The problem of differentiating more steps than there are."""
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
