"""Nudging schemes, the gradient estimates that they give, and how gradients reach ``.grad``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.contrasts import Gradients, added, readout_gradient, state_contrast
from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.models.energy import EnergyModel
from altprop.nn.energy.edges import Routing

NudgingName = Literal["one_sided", "random_sign", "symmetric", "five_phase"]

FREE = -1
"""The number of the free phase in :attr:`Nudging.contrasts`."""


@dataclass(frozen=True)
class Nudging:
    """Which nudged phases there are, and how their contrasts estimate a gradient.

    ``strengths`` are those of the nudged phases in units of beta; each phase starts from the free state. The gradient is
    ``- sum coefficient / beta * (D(upper) - D(lower))`` over ``contrasts``, a tuple of ``(coefficient, upper, lower)`` with
    numbers of phases, where ``D`` is the derivative of the primitive function. The bias of the estimate falls with beta to the
    power of ``order``.
    """

    strengths: tuple[float, ...]
    contrasts: tuple[tuple[float, int, int], ...]
    order: int
    random_sign: bool = False

    def strength(self, phase: int) -> float:
        """Return the strength of ``phase`` in units of beta; 0 for :data:`FREE`."""
        return 0.0 if phase == FREE else self.strengths[phase]


NUDGINGS: dict[str, Nudging] = {
    "one_sided": Nudging((1.0,), ((1.0, 0, FREE),), order=1),
    "random_sign": Nudging((1.0,), ((1.0, 0, FREE),), order=1, random_sign=True),
    "symmetric": Nudging((1.0, -1.0), ((0.5, 0, 1),), order=2),
    # Fourth-order central difference, section "Extras".
    "five_phase": Nudging((1.0, -1.0, 2.0, -2.0), ((8 / 12, 0, 1), (-1 / 12, 2, 3)), order=4),
}


def nudged_gradient(
    network: Network,
    inputs: Tensor,
    free: States,
    phases: Sequence[States],
    nudging: Nudging,
    beta: float | Tensor,
    one_hot_targets: Tensor,
    *,
    fixed: States | None = None,
    same_update: bool = False,
    input_routing: Routing | None = None,
    buffers: Sequence[Tensor | None] | None = None,
) -> Gradients:
    """Return the estimate of the loss gradient (sections "EP gradient of symmetric models" and "of vector field models").

    It is ``- [dPhi(upper) - dPhi(lower)] / (difference of their nudges)``, summed over the contrasts of ``nudging``. The loss
    inside ``Phi`` gives the gradient of a readout, ``strength * G``.

    Args:
        network: The network that was relaxed.
        inputs: The mini-batch ``[batch, channels, height, width]``, masked if there is dropout.
        free: States at the end of the free phase, each ``[batch, *shape]``.
        phases: States at the end of every nudged phase, in the order of ``nudging.strengths``.
        nudging: The scheme of the nudged phases.
        beta: Strength of the nudge.
        one_hot_targets: ``[batch, classes]``.
        fixed: States of the sending units of a vector-field network; default ``free``.
        same_update: As in :func:`state_contrast`.
        input_routing: As in :func:`state_contrast`.
        buffers: As in :func:`state_contrast`.
    """
    states = {FREE: free, **dict(enumerate(phases))}
    terms: list[Mapping[str, Tensor]] = []
    for coefficient, upper, lower in nudging.contrasts:
        terms.append(
            state_contrast(
                network,
                inputs,
                states[upper],
                states[lower],
                free if fixed is None else fixed,
                factor=-coefficient / beta,
                same_update=same_update,
                input_routing=input_routing,
                buffers=None if terms else buffers,
            )
        )
        for phase, sign in ((upper, coefficient), (lower, -coefficient)):
            if nudging.strength(phase):
                terms.append(readout_gradient(network, states[phase], one_hot_targets, sign * nudging.strength(phase)))
    return added(terms)


def pair_gradient(
    network: Network,
    inputs: Tensor,
    old: States,
    new: States,
    betas: tuple[float | Tensor, float | Tensor],
    one_hot_targets: Tensor,
) -> Gradients:
    """Return ``- [dPhi(new, betas[1]) - dPhi(old, betas[0])] / (betas[1] - betas[0])``, the general contrast of section 2.4.

    In a vector-field network the sending units stay at ``old``.
    """
    first, second = betas
    divisor = second - first
    return added(
        [
            state_contrast(network, inputs, new, old, old, factor=-1.0 / divisor),
            readout_gradient(network, new, one_hot_targets, second / divisor),
            readout_gradient(network, old, one_hot_targets, -first / divisor),
        ]
    )


def assign(model: EnergyModel, gradients: Mapping[str, Tensor]) -> None:
    """Add gradients of effective weights to ``.grad`` of the parameters, directly or through a parametrization.

    Takes ownership of the tensors: one of them becomes the ``.grad`` of a parameter that has none.
    """
    for name, gradient in gradients.items():
        path, _, attribute = name.rpartition(".")
        layer = model.get_submodule(path)
        if path.startswith("feedback"):
            gradient = model.to_feedback_layout(gradient)
        parameter = layer._parameters.get(attribute)
        if parameter is None:  # parametrized
            with torch.enable_grad():
                getattr(layer, attribute).backward(gradient)
        elif not parameter.requires_grad:
            continue
        elif parameter.grad is not None:
            parameter.grad.add_(gradient)
        elif gradient.stride() == parameter.stride():
            parameter.grad = gradient
        else:  # optimizers are fastest if gradients have the strides of their parameters
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
