"""Equilibrium propagation (Laborieux et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from altprop.algorithms.context import Capabilities
from altprop.algorithms.equilibrium_propagation.base import masked
from altprop.algorithms.equilibrium_propagation.dynamics import Nudge
from altprop.algorithms.equilibrium_propagation.gradients import NUDGINGS, Nudging, NudgingName, assign, nudged_gradient
from altprop.algorithms.equilibrium_propagation.network import Network, States, one_hot
from altprop.algorithms.equilibrium_propagation.nudged import NudgedAlgorithm, NudgedOptions
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation
from altprop.problems import Problem

FixedState = Literal["free", "nudged"]


class EquilibriumPropagation(NudgedAlgorithm):
    """A free phase, then nudged phases that start where it ended; the contrast of their states is the gradient (section 2.5).

    Args:
        nudging: Which nudged phases there are: ``one_sided``, ``random_sign``, ``symmetric`` or ``five_phase``.
        same_update: Give forward and feedback weights of a vector-field network the same update.
        fixed_state: State at which the sending units of a vector-field network stay in a symmetric contrast: the ``free`` one
            (the paper's rule), or the positively ``nudged`` one, as in the published MLP.
        **options: Those of :class:`NudgedAlgorithm` and :class:`EnergyAlgorithm`.
    """

    capabilities: ClassVar[Capabilities] = replace(NudgedAlgorithm.capabilities, compile=True, cuda_graph=True)

    def __init__(
        self,
        *,
        nudging: NudgingName = "one_sided",
        same_update: bool = False,
        fixed_state: FixedState = "free",
        **options: Unpack[NudgedOptions],
    ) -> None:
        super().__init__(**options)
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
        """Return the tensors for the gradients of linear edges, reused in every step: writing to fresh memory is slow."""
        if self._buffers is None:
            pairs = zip(network.edges, network.weights, strict=True)
            self._buffers = [None if edge.is_convolution else torch.empty_like(weight) for edge, weight in pairs]
        return self._buffers

    def nudged_phases(self, relaxation: Relaxation, free: States, targets: Tensor, beta: float | Tensor) -> list[States]:
        """Return the states after every nudged phase. All phases run in parallel, as one batch.

        ``targets`` are one-hot ``[batch, classes]``.
        """
        strengths = self.nudging.strengths
        if len(strengths) == 1:
            nudge = Nudge(targets, targets.new_full((relaxation.batch, 1), strengths[0]) * beta)
            return [relaxation.run(free, self.nudge_steps, nudge)]
        unit = torch.cat([targets.new_full((relaxation.batch, 1), strength) for strength in strengths])
        nudge = Nudge(torch.cat([targets] * len(strengths)), unit * beta)
        states = relaxation.run_nudged(free, self.nudge_steps, nudge)
        return [list(phase) for phase in zip(*(state.chunk(len(strengths)) for state in states), strict=True)]

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of options that only vector-field networks have."""
        yield from super().check(config, root)
        if root["trainer"].get("cuda_graph"):
            for name, value, eager in (
                ("tolerance", None, "reads the states"),
                ("free_start", "zeros", "depends on the last step"),
            ):
                if config.get(name, value) != value:
                    off = "null" if value is None else value
                    description = f"{config[name]} with trainer.cuda_graph, whose steps are all alike; this one {eager}"
                    yield Problem(f"algorithm.{name}", description, f"only {off}", f"algorithm.{name}={off}")
        vector_field = bool(root["model"].get("vector_field"))
        if config["same_update"] and not vector_field:
            allowed = "only vector-field models have separate feedback weights"
            yield Problem("algorithm.same_update", "true", allowed, "model=eqprop_vf_cnn")
        if config["fixed_state"] == "nudged" and (not vector_field or config["same_update"] or config["nudging"] != "symmetric"):
            allowed = "nudged has a meaning only for vector-field models with algorithm.nudging=symmetric and separate updates"
            yield Problem("algorithm.fixed_state", "nudged", allowed, "algorithm.fixed_state=free")
