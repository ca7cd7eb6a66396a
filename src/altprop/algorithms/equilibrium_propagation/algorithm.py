"""Equilibrium propagation (Laborieux et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from altprop.algorithms.context import Capabilities
from altprop.algorithms.equilibrium_propagation.common import FreeStart, masked
from altprop.algorithms.equilibrium_propagation.costs import LossName, one_hot
from altprop.algorithms.equilibrium_propagation.dynamics import Nudge
from altprop.algorithms.equilibrium_propagation.gradients import assign, nudged_gradient
from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.algorithms.equilibrium_propagation.nudged import NudgedAlgorithm
from altprop.algorithms.equilibrium_propagation.nudging import NUDGINGS, Nudging, NudgingName
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation, UpdateOrder
from altprop.nn.weights.base import WeightsRule
from altprop.problems import Problem

FixedState = Literal["free", "nudged"]


class EquilibriumPropagation(NudgedAlgorithm):
    """A free phase, nudged phases from where it ended, and the contrast of their states as the gradient (section 2.5).

    ``beta`` is the strength of the nudge, ``nudge_steps`` the paper's T2, ``nudging`` which nudged phases there are.
    ``same_update`` gives forward and feedback weights of a vector-field network the same update. ``fixed_state`` is where the
    sending units of a vector-field network stay in a symmetric contrast: at the ``free`` state (the paper's rule), or at the
    positively ``nudged`` one, as the published MLP has it.
    """

    capabilities: ClassVar[Capabilities] = replace(NudgedAlgorithm.capabilities, compile=True)

    def __init__(
        self,
        *,
        loss: LossName = "mse",
        beta: float = 0.01,
        nudging: NudgingName = "one_sided",
        free_steps: int = 20,
        nudge_steps: int = 4,
        same_update: bool = False,
        fixed_state: FixedState = "free",
        learning_rates: Sequence[float] | None = None,
        weight_decays: Sequence[float] | None = None,
        update_order: UpdateOrder = "synchronous",
        tolerance: float | None = None,
        free_start: FreeStart = "zeros",
        activate_output_in_evaluation: bool = False,
        check_every: int | None = None,
        weights: WeightsRule | None = None,
    ) -> None:
        super().__init__(
            beta=beta,
            nudge_steps=nudge_steps,
            check_every=check_every,
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
        self.nudging: Nudging = NUDGINGS[nudging]
        self.both_signs = nudging == "symmetric"
        self.same_update = same_update
        self.fixed_state = fixed_state
        self._buffers: list[Tensor | None] | None = None

    @torch.no_grad()
    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        network = self.network()
        masks = self.draw_masks(inputs)
        relaxation = self.relaxation(network, inputs, masks)
        free = self.free_phase(relaxation, self.free_steps)
        free_steps = relaxation.steps_taken
        active = masked(free, masks)
        metrics = self.fit(network.scores(active), targets)

        beta = self.signed_beta(self.nudging.random_sign, inputs)
        targets = one_hot(targets, inputs.new_empty(inputs.shape[0], self.model.num_classes))
        phases = self.nudged_phases(relaxation, free, targets, beta)
        self.remember(phases[-1])
        if self.tolerance is not None:
            metrics["free_steps"] = torch.full((), float(free_steps), device=inputs.device)
            metrics["nudge_steps"] = torch.full((), float(relaxation.steps_taken), device=inputs.device)

        active_phases = [masked(phase, masks) for phase in phases]
        gradients = nudged_gradient(
            network,
            relaxation.inputs,
            active,
            active_phases,
            self.nudging,
            beta,
            targets,
            fixed=active if self.fixed_state == "free" else active_phases[0],
            same_update=self.same_update,
            input_routing=relaxation.routing,
            buffers=self.gradient_buffers(network),
        )
        self.optimization.zero_grad()
        assign(self.model, gradients)
        self.optimization.step()
        return metrics

    def gradient_buffers(self, network: Network) -> Sequence[Tensor | None]:
        """Where every step writes the gradients of linear edges: fresh memory for a large matrix is slow to write to."""
        if self._buffers is None:
            pairs = zip(network.edges, network.weights, strict=True)
            self._buffers = [None if edge.is_convolution else torch.empty_like(weight) for edge, weight in pairs]
        return self._buffers

    def nudged_phases(self, relaxation: Relaxation, free: States, targets: Tensor, beta: float | Tensor) -> list[States]:
        """The states after every nudged phase. All phases run side by side as one batch.

        ``targets`` one-hot ``[batch, classes]``.
        """
        strengths = self.nudging.strengths
        if len(strengths) == 1:
            nudge = Nudge(targets, targets.new_full((relaxation.batch, 1), strengths[0]) * beta)
            return [relaxation.run(free, self.nudge_steps, nudge)]
        unit = torch.cat([targets.new_full((relaxation.batch, 1), strength) for strength in strengths])
        nudge = Nudge(torch.cat([targets] * len(strengths)), unit * beta)
        start = [torch.cat([state] * len(strengths)) for state in free]
        ended = relaxation.run(start, self.nudge_steps, nudge)
        return [list(phase) for phase in zip(*(state.chunk(len(strengths)) for state in ended), strict=True)]

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of options that only vector-field networks have."""
        yield from super().check(config, root)
        vector_field = bool(root["model"].get("vector_field"))
        if config["same_update"] and not vector_field:
            allowed = "only vector-field models have separate feedback weights"
            yield Problem("algorithm.same_update", "true", allowed, "model=eqprop_vf_cnn")
        if config["fixed_state"] == "nudged" and (not vector_field or config["same_update"] or config["nudging"] != "symmetric"):
            allowed = "nudged has a meaning only for vector-field models with algorithm.nudging=symmetric and separate updates"
            yield Problem("algorithm.fixed_state", "nudged", allowed, "algorithm.fixed_state=free")
