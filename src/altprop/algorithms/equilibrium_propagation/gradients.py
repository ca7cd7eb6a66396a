"""From the states of the phases to the gradients of the parameters, and from gradients to ``.grad``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.contrasts import Gradients, added, readout_gradient, state_contrast
from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.algorithms.equilibrium_propagation.nudging import FREE, Nudging
from altprop.models.energy import EnergyModel
from altprop.nn.energy.edges import Routing


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
    """The estimate of the loss gradient (sections "EP gradient of symmetric models" and "of vector field models").

    ``- [dPhi(upper) - dPhi(lower)] / (difference of their nudges)``, summed over the contrasts of ``nudging``; the readout's part
    is that of the loss inside Phi, ``strength * G``. ``free`` and every one of ``phases`` are states ``[batch, *shape]``;
    ``fixed`` (default: ``free``) where the sending units of a vector-field network stay, ``buffers`` as in
    :func:`state_contrast`.
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
    """``- [dPhi(new, betas[1]) - dPhi(old, betas[0])] / (betas[1] - betas[0])``, the general contrast of section 2.4.

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
    """Add gradients of effective weights to the parameters behind them: directly, or through a parametrization.

    Takes the tensors over: a parameter without a gradient keeps the one given.
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
        else:  # optimizers are fastest where gradients lie like their parameters
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
