"""Base of the algorithms with a nudged phase: the nudge, its sign, and the theorem check during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.base import EnergyAlgorithm, EnergyOptions, at_least_one
from altprop.algorithms.equilibrium_propagation.dynamics import Nudge
from altprop.algorithms.equilibrium_propagation.network import one_hot
from altprop.algorithms.equilibrium_propagation.theorem import check_gradients
from altprop.problems import Problem
from altprop.ranges import Iterations, NudgeStrength, PositiveInt

CHECKED_SAMPLES = 5
"""Number of images of a mini-batch in the theorem check during training."""


class NudgedOptions(EnergyOptions, total=False):
    """The arguments of :class:`NudgedAlgorithm`, for the ``**options`` of its subclasses."""

    beta: NudgeStrength
    nudge_steps: Iterations
    check_every: PositiveInt | None


class NudgedAlgorithm(EnergyAlgorithm):
    """Base of the algorithms that contrast a free phase with nudged phases.

    Args:
        beta: Strength of the nudge.
        nudge_steps: Time steps of a nudged phase, the paper's T2.
        check_every: Training steps between two theorem checks on the first images of the mini-batch; None: no checks. A check
            reports, for every parameter, the error of the one-sided estimate over time (``check/<parameter>/rmse``), the
            percentage of wrong signs (``wrong_signs``) and, except for a readout, the angle in degrees between the whole
            estimate and the gradient (``angle``).
        **options: Those of :class:`EnergyAlgorithm`.
    """

    continual: ClassVar[bool] = False
    """Whether the parameters move within the nudged phase, also during a check."""

    def __init__(
        self,
        *,
        beta: NudgeStrength = 0.01,
        nudge_steps: Iterations = 4,
        check_every: PositiveInt | None = None,
        **options: Unpack[EnergyOptions],
    ) -> None:
        super().__init__(**options)
        self.beta = beta
        self.nudge_steps = nudge_steps
        self.check_every = check_every
        self.same_update = False
        self.both_signs = False
        """Whether a check uses both signs of the nudge, as the estimate does."""

    def train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        errors = {}
        if self.check_every is not None and self.step % self.check_every == 0:
            errors = self.theorem_check(inputs[:CHECKED_SAMPLES], targets[:CHECKED_SAMPLES])
        return {**super().train_step(inputs, targets), **errors}

    def theorem_check(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the metrics of the theorem check on ``inputs`` with this run's phases."""
        with torch.no_grad():
            network = self.network()
        check = check_gradients(
            network,
            inputs,
            targets,
            free_steps=self.free_steps,
            steps=min(self.nudge_steps, self.free_steps),
            beta=self.beta,
            same_update=self.same_update,
            continual=self.continual,
        )
        metrics = {}
        for name, (rmse, signs) in check.errors().items():
            metrics[f"check/{name}/rmse"] = rmse
            metrics[f"check/{name}/wrong_signs"] = 100.0 * signs
        for name, alignment in check.alignments().items():
            metrics[f"check/{name}/angle"] = alignment.angle
        return metrics

    def signed_beta(self, random_sign: bool, inputs: Tensor) -> float | Tensor:
        """Return ``beta``. With ``random_sign`` each mini-batch gets either sign with probability 1/2, from the run's seed."""
        if not random_sign:
            return self.beta
        generator = self.context.device_generator("nudging")
        positive = torch.rand((), generator=generator, device=inputs.device) < 0.5
        beta = inputs.new_full((), self.beta)
        return torch.where(positive, beta, -beta)

    def probe_phases(self) -> dict[str, Tensor]:
        phases = super().probe_phases()
        if self.probe is not None:
            inputs, targets = self.probe
            network = self.network()
            relaxation = self.relaxation(network, inputs)
            free = relaxation.run_from_zeros(self.free_steps)
            hot = one_hot(targets, inputs.new_empty(len(inputs), self.model.num_classes))
            nudge = Nudge(hot, hot.new_full((len(inputs), 1), self.beta))
            phases["nudged"] = relaxation.residuals(free, self.nudge_steps, nudge)
        return phases

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the nudge and of checks during training."""
        yield from super().check(config, root)
        yield from at_least_one(config, "nudge_steps")
        if config["check_every"] is not None:
            yield from at_least_one(config, "check_every")
        if isinstance(config["beta"], (int, float)) and config["beta"] <= 0:
            yield Problem("algorithm.beta", str(config["beta"]), "above 0; the free phase has no nudge", "algorithm.beta=0.5")
