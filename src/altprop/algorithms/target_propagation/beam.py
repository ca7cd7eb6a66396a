"""Targets for a layer of sign units with which the layer above reaches its own: a beam search over flips for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

FLIP_COST = 1e-3
"""Added per flip, so that of two equally good proposals the one closer to the present activations comes first."""


def hinge_losses(potentials: Tensor, targets: Tensor) -> Tensor:
    """Return the layer losses ``sum_k max(0, 1 - t_k z_k)``, ``[…, units] -> […]``."""
    return (1 - targets * potentials).clamp(min=0).sum(dim=-1)


def propose_targets(
    activations: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, *, beam: int, candidates: int, flips: int
) -> Tensor:
    """Return the ``beam`` best settings of targets for the layer below, ``[beam, samples, inputs]``, each sample's best first.

    Starts from the present activations. Each of ``flips`` rounds flips one unit and keeps the ``beam`` settings with the smallest
    layer loss. The unit is one of the ``candidates`` with the largest gradient whose target ``t = -sign(dL/dh)`` is not its
    present state.

    Args:
        activations: Present output of the layer below, ``[samples, inputs]`` in {-1, +1}.
        weight: Weight of the layer above, ``[units, inputs]``.
        bias: Bias of the layer above, ``[units]``.
        targets: Targets of the layer above, ``[samples, units]``.
        beam: Number of settings to keep.
        candidates: Number of units to try per setting and round.
        flips: Number of rounds.
    """
    states = activations[:, None]
    losses = hinge_losses(states @ weight.T + bias, targets[:, None])
    proposals, proposal_losses = states, losses
    for number in range(1, flips + 1):
        states, losses = _flip_one(states, weight, bias, targets[:, None], beam, min(candidates, activations.shape[1]))
        proposals = torch.cat([proposals, states], dim=1)
        proposal_losses = torch.cat([proposal_losses, losses + FLIP_COST * number], dim=1)
    order = proposal_losses.argsort(dim=1, stable=True)[:, :beam]
    return take(proposals, order).transpose(0, 1)


def _flip_one(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, beam: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Return the ``beam`` best settings that differ from one of ``states`` ``[samples, states, inputs]`` in one candidate."""
    potentials = states @ weight.T + bias
    gradient = -((1 - targets * potentials > 0) * targets) @ weight
    units = (states * gradient).topk(candidates, dim=2).indices
    step = -2 * states.gather(2, units)
    flipped = potentials[:, :, None] + step[..., None] * weight.T[units]
    losses = hinge_losses(flipped, targets[:, :, None]).flatten(1)
    losses, order = _distinct(losses).sort(dim=1, stable=True)
    losses, order = losses[:, :beam], order[:, :beam]
    parents, unit = order // candidates, units.flatten(1).gather(1, order)
    children = take(states, parents)
    signs = torch.ones_like(children).scatter_(2, unit[..., None], -1.0)
    return children * signs, losses


def _distinct(losses: Tensor) -> Tensor:
    """Set ``losses`` ``[samples, settings]`` to infinity for settings with the same loss as an earlier one.

    Equal losses mostly belong to the same setting, because two units can be flipped in either order.
    """
    ordered, order = losses.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered.diff(dim=1) < 1e-6
    return losses.masked_fill(torch.zeros_like(repeated).scatter_(1, order, repeated), torch.inf)


def take(states: Tensor, order: Tensor) -> Tensor:
    """Select from ``states`` ``[samples, settings, inputs]`` the settings with the indices ``order`` ``[samples, selected]``."""
    return states.gather(1, order[..., None].expand(-1, -1, states.shape[2]))
