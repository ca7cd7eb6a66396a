"""Feasible target propagation in mini-batches (FTPROP-MB) for networks with hard units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Loss
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation.unit_diagnostics import UnitDiagnostics
from altprop.nn.estimators.base import Estimator
from altprop.nn.units.compact import compact_hard_outputs
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem
from altprop.ranges import NonNegativeInt


class TargetPropagation(Backprop):
    """Feasible target propagation in mini-batches, FTPROP-MB (Friesen & Domingos 2018).

    Every hard unit gets the target ``t = -sign(g)``, where ``g`` is the gradient of its output, and every layer takes one
    gradient step on a loss ``l(z, t)`` per unit. Because layer losses are weighted by ``|g|``, the whole step is one backward
    pass in which the estimator replaces the derivative of the hard units, as in :class:`Backprop`. In addition, hard outputs are
    stored in a byte or less until the backward pass, and hard units are observed once per epoch in evaluation mode.

    Args:
        estimator: Replaces the derivative of hard units in the backward pass. Raises ``ConfigError`` if it is None.
        loss: The loss at the output. Default: cross-entropy.
        weights: The weights rule. Default: dense weights.
        diagnostic_images: Number of training images on which hard units are observed. 0 switches this off.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        amp=True, compile=True, ddp=True, accumulate=True, clip=True, cuda_graph=True, needs_hard_units=True
    )

    def __init__(
        self,
        *,
        estimator: Estimator | None,
        loss: Loss | None = None,
        weights: WeightsRule | None = None,
        diagnostic_images: NonNegativeInt = 32,
    ) -> None:
        problems = list(_problems(estimator, diagnostic_images))
        if problems:
            raise ConfigError(problems)
        super().__init__(loss=loss, weights=weights, estimator=estimator)
        self.diagnostics = UnitDiagnostics(diagnostic_images)

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        steps = super().build(optimizer, schedule)
        if not self.context.compile:  # a compiler decides itself what to store for the backward pass
            self.forward = self._forward_compactly
        return steps

    def _forward_compactly(self, inputs: Tensor) -> Tensor:
        with compact_hard_outputs():
            scores: Tensor = self.model(inputs)
        return scores

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.diagnostics.needs_images:
            with self.inference():
                self.diagnostics.start(self.model, inputs)
        return super().update(inputs, targets)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        metrics = super().epoch_end(epoch)
        if self.diagnostics.started:
            with self.inference():
                metrics |= self.diagnostics.epoch_end(self.model)
        return metrics

    def figures(self, directory: Path) -> Iterable[Path]:
        """Draw histograms of inputs and outputs of every layer of hard units, and its active and flipped fraction by epoch."""
        if not self.diagnostics.started:
            return []
        from altprop.reporting.figures.units import draw_units  # Matplotlib is only needed at the end of a run

        with self.inference():
            layers = self.diagnostics.layers(self.model)
        return [draw_units(layers, directory / "units.png")]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "diagnostics": self.diagnostics.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.diagnostics.load_state_dict(state["diagnostics"], self.context.device)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the estimator and of ``diagnostic_images``."""
        yield from _problems(config.get("estimator"), config.get("diagnostic_images", 0))


def _problems(estimator: object, diagnostic_images: object) -> Iterator[Problem]:
    if estimator is None:
        allowed = "target propagation needs a layer loss for the hard units"
        yield Problem("algorithm.estimator", "none", allowed, "algorithm/estimator=soft_hinge")
    if not isinstance(diagnostic_images, int) or diagnostic_images < 0:
        key = "algorithm.diagnostic_images"
        yield Problem(key, str(diagnostic_images), "a whole number, 0 for none", f"{key}=32")
