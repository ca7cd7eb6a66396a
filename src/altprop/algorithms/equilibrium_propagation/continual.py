"""Continual equilibrium propagation: the parameters move at every step of the nudged phase (section "Continual EP")."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.base import masked
from altprop.algorithms.equilibrium_propagation.contrasts import Gradients, added
from altprop.algorithms.equilibrium_propagation.dynamics import Masks, Nudge
from altprop.algorithms.equilibrium_propagation.gradients import assign, pair_gradient
from altprop.algorithms.equilibrium_propagation.network import States, one_hot
from altprop.algorithms.equilibrium_propagation.nudged import NudgedAlgorithm, NudgedOptions
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.names import builds
from altprop.problems import Problem

ThirdPhase = Literal["none", "published", "symmetric"]

DEBUG_SHARE = 6e-5
"""Factor on the learning rates of the small steps in debug mode."""

DECAY_SHARE = 0.1
"""A whole nudged phase multiplies weights by ``1 - 0.1 * decay``, independent of the learning rate."""


def converted_decay(decay: float, learning_rate: float, steps: int) -> float:
    """Return the decay per small step such that ``steps`` of them multiply a weight by ``1 - 0.1 * decay`` in total.

    It solves ``(1 - learning_rate * result) ** steps == 1 - 0.1 * decay``.
    """
    return (1.0 - (1.0 - DECAY_SHARE * decay) ** (1.0 / steps)) / learning_rate


class ContinualEquilibriumPropagation(NudgedAlgorithm):
    """One optimizer step per time step of the nudged phase, on the contrast of consecutive states.

    With a softmax readout every small step gives the readout its whole gradient, ``nudge_steps`` times that of equilibrium
    propagation. Weight decays are converted once, see :func:`converted_decay`.

    Args:
        random_sign: Draw the sign of the nudge for each mini-batch, both with probability 1/2.
        third_phase: ``none``, ``published`` or ``symmetric``. The published third phase relaxes again and repeats with the
            opposite nudge at half the weight, without compensating the decay. The symmetric one runs both nudges in parallel
            from the free state and averages their contrasts, which for small steps is the symmetric estimate.
        debug: Take the small steps at 6e-5 of the learning rates, undo them, and make one ordinary step with their sum. In
            float32 the sum is off by 10 to 30 % through rounding. Needs plain gradient descent: only then do small steps add up
            to a gradient.
        **options: Those of :class:`NudgedAlgorithm` and :class:`EnergyAlgorithm`.
    """

    continual: ClassVar[bool] = True

    def __init__(
        self,
        *,
        random_sign: bool = False,
        third_phase: ThirdPhase = "none",
        debug: bool = False,
        **options: Unpack[NudgedOptions],
    ) -> None:
        super().__init__(**options)
        self.random_sign = random_sign
        self.third_phase = third_phase
        self.debug = debug
        self.both_signs = third_phase != "none"

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        steps = list(super().build(optimizer, schedule))
        if not self.debug:
            built = steps[0].optimizer
            for group, settings in zip(built.param_groups, self.parameter_groups(), strict=True):
                if group.get("weight_decay"):
                    # not the current rate of the group, which a schedule may already have changed
                    rate = float(settings.get("lr", built.defaults["lr"]))
                    group["weight_decay"] = converted_decay(group["weight_decay"], rate, self.nudge_steps)
        return steps

    @torch.no_grad()
    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        masks = self.draw_masks(inputs)
        network = self.network()
        relaxation = self.relaxation(network, inputs, masks)
        free = self.free_phase(relaxation, self.free_steps)
        metrics = self.fit(network.scores(masked(free, masks)), targets)
        if self.tolerance is not None:
            metrics["free_steps"] = torch.full((), float(relaxation.steps_taken), device=inputs.device)
        beta = self.signed_beta(self.random_sign, inputs)
        targets = one_hot(targets, inputs.new_empty(inputs.shape[0], self.model.num_classes))

        published = self.third_phase == "published"
        nudged_phase = self._debug_phase if self.debug else self._nudged_phase
        states = nudged_phase(inputs, masks, free, targets, beta, advance=not published)
        if published:
            relaxed = self.relaxation(self.network(), inputs, masks).run(states, self.nudge_steps)
            states = self._opposite_phase(inputs, masks, relaxed, targets, beta)
        self.remember(states)
        return metrics

    def _nudged_phase(
        self, inputs: Tensor, masks: Masks | None, free: States, targets: Tensor, beta: float | Tensor, *, advance: bool
    ) -> States:
        """Run the nudged phase with its small steps, both nudges in parallel in the symmetric variant; return its last states."""
        signs = (1.0, -1.0) if self.third_phase == "symmetric" else (1.0,)
        trajectories = [free] * len(signs)
        for count in range(self.nudge_steps):
            terms: list[Gradients] = []
            for index, sign in enumerate(signs):
                trajectories[index], gradients = self._small_step(
                    inputs, masks, trajectories[index], targets, sign * beta, (0.0, sign * beta)
                )
                terms.append({name: gradient / len(signs) for name, gradient in gradients.items()})
            last = count + 1 == self.nudge_steps
            self._apply(added(terms), remaining=self.nudge_steps - 1 - count, advance=advance and last)
        return trajectories[0]

    def _opposite_phase(
        self, inputs: Tensor, masks: Masks | None, states: States, targets: Tensor, beta: float | Tensor
    ) -> States:
        """Run the published third phase: nudge ``-beta``, contrasts divided by ``-2 beta``, decay not compensated."""
        for count in range(self.nudge_steps):
            states, gradients = self._small_step(inputs, masks, states, targets, -beta, (beta, -beta))
            self._apply(gradients, remaining=0, advance=count + 1 == self.nudge_steps)
        return states

    def _small_step(
        self,
        inputs: Tensor,
        masks: Masks | None,
        states: States,
        targets: Tensor,
        strength: float | Tensor,
        betas: tuple[float | Tensor, float | Tensor],
    ) -> tuple[States, Gradients]:
        """Take one time step with the current parameters; return the new states and their contrast with the old ones."""
        network = self.network()
        relaxation = self.relaxation(network, inputs, masks)
        new = relaxation.run(states, 1, Nudge(targets, targets.new_ones(len(targets), 1) * strength))
        old_active, new_active = masked(states, masks), masked(new, masks)
        return new, pair_gradient(network, relaxation.inputs, old_active, new_active, betas, targets)

    def _apply(self, gradients: Gradients, *, remaining: int, advance: bool) -> None:
        """Take one optimizer step, enlarged beforehand by what the decay of the ``remaining`` small steps will take off it."""
        self.optimization.zero_grad()
        assign(self.model, gradients)
        for group in self.optimization.optimizer.param_groups:
            share = (1.0 - group["lr"] * group.get("weight_decay", 0.0)) ** remaining
            if share != 1.0:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(share)
        self.optimization.step(advance_schedule=advance)

    def _debug_phase(
        self, inputs: Tensor, masks: Masks | None, free: States, targets: Tensor, beta: float | Tensor, *, advance: bool
    ) -> States:
        """Run the nudged phase at tiny learning rates, undo it, and take one step with the gradient that it adds up to."""
        optimizer = self.optimization.optimizer
        before = copy.deepcopy(optimizer.state_dict())
        values = [[parameter.clone() for parameter in group["params"]] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * DEBUG_SHARE
        states = self._nudged_phase(inputs, masks, free, targets, beta, advance=False)
        self.optimization.zero_grad()
        for group, saved in zip(optimizer.param_groups, values, strict=True):
            for parameter, value in zip(group["params"], saved, strict=True):
                parameter.grad = (value - parameter) / group["lr"]
                parameter.copy_(value)
        optimizer.load_state_dict(before)
        self.optimization.step(advance_schedule=advance)
        return states

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of debug mode and of converted decays.

        Debug mode needs an optimizer whose small steps add up, and does not go with the alignment probe.
        """
        yield from super().check(config, root)
        optimizer = root["optimizer"]
        if not config["debug"]:
            yield from _conversion_problems(config, optimizer)
        if config["debug"] and (not builds(optimizer, torch.optim.SGD) or optimizer.get("momentum")):
            allowed = "only with plain gradient descent do small steps add up to a gradient"
            yield Problem("algorithm.debug", "true", allowed, "optimizer=sgd optimizer.momentum=0")
        if config["debug"] and root["trainer"].get("probe_every") is not None:
            allowed = "null in debug mode, where the probe would count steps that are undone"
            yield Problem("trainer.probe_every", root["trainer"]["probe_every"], allowed, "trainer.probe_every=null")


def _conversion_problems(config: Mapping[str, Any], optimizer: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of decays that :func:`converted_decay` cannot convert."""
    decays, rates = config.get("weight_decays"), config.get("learning_rates")
    key = "algorithm.weight_decays" if decays is not None else "optimizer.weight_decay"
    for index, decay in enumerate(decays if decays is not None else [optimizer.get("weight_decay")]):
        if not isinstance(decay, (int, float)) or decay <= 0:
            continue
        if DECAY_SHARE * decay >= 1.0:
            allowed = f"below {1 / DECAY_SHARE:g}: a nudged phase multiplies weights by 1 - {DECAY_SHARE:g} times the decay"
            yield Problem(key, str(decay), allowed, f"{key}=0" if decays is None else f"{key}=null")
        layer_rates = rates[index : index + 1] if rates is not None and decays is not None else (rates or [optimizer.get("lr")])
        if any(rate == 0 for rate in layer_rates):
            allowed = "above 0 if there is a weight decay, which is divided by it; debug mode does not convert decays"
            yield Problem("optimizer.lr" if rates is None else "algorithm.learning_rates", "0", allowed, f"{key}=null")
