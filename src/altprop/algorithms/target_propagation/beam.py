"""Targets for a layer of sign units that would let the layer above reach its own: a beam search over flips, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

FLIP_COST = 1e-3
"""Added per flip, so that of two equally good proposals the one nearer to what the layer does now comes first."""


def hinge_losses(potentials: Tensor, targets: Tensor) -> Tensor:
    """Layer loss ``sum_k max(0, 1 - t_k z_k)``; ``[…, units]`` each -> ``[…]``."""
    return (1 - targets * potentials).clamp(min=0).sum(dim=-1)


def propose_targets(
    activations: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, *, beam: int, candidates: int, flips: int
) -> Tensor:
    """The ``beam`` best target settings found for the layer below, ``[beam, samples, inputs]``, the best of each sample first.

    ``activations`` ``[samples, inputs]`` in {-1, +1} are what the layer below does now, ``weight`` ``[units, inputs]`` and
    ``bias`` ``[units]`` what the layer above computes from it, ``targets`` ``[samples, units]`` what that layer should put out.
    From the present activations on, each of up to ``flips`` rounds flips one unit, chosen among the ``candidates`` to which
    ``t = -sign(dL/dh)`` gives another target with the largest gradient, and keeps the ``beam`` settings of least layer loss.
    """
    states = activations[:, None]
    losses = hinge_losses(states @ weight.T + bias, targets[:, None])
    found, found_losses = states, losses
    for number in range(1, flips + 1):
        states, losses = _flip_one(states, weight, bias, targets[:, None], beam, min(candidates, activations.shape[1]))
        found = torch.cat([found, states], dim=1)
        found_losses = torch.cat([found_losses, losses + FLIP_COST * number], dim=1)
    order = found_losses.argsort(dim=1, stable=True)[:, :beam]
    return take(found, order).transpose(0, 1)


def _flip_one(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, beam: int, candidates: int) -> tuple[Tensor, Tensor]:
    """The ``beam`` best settings that differ from one of ``states`` ``[samples, states, inputs]`` in one promising unit."""
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
    """``losses`` ``[samples, settings]`` with infinity where an earlier setting has the same loss.

    Flipping two units in either order gives one setting; those are the settings of equal loss that matter.
    """
    ordered, order = losses.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered.diff(dim=1) < 1e-6
    return losses.masked_fill(torch.zeros_like(repeated).scatter_(1, order, repeated), torch.inf)


def take(states: Tensor, order: Tensor) -> Tensor:
    """The settings ``order`` ``[samples, chosen]`` of ``states`` ``[samples, settings, inputs]``."""
    return states.gather(1, order[..., None].expand(-1, -1, states.shape[2]))
