"""Diagnostics of energy-based networks during training: activity, convergence, angles of feedback weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altprop.algorithms.alignment import angle
from altprop.algorithms.equilibrium_propagation.network import Network
from altprop.models.energy import EnergyModel

PROBE_SAMPLES = 20
"""Number of images from the last mini-batch of an epoch: enough for a figure, and cheap compared with an epoch."""

CONVERGED = 1e-4
"""A phase has converged at the first step after which no unit moves by more than this in a step."""


def weight_angles(model: EnergyModel) -> dict[str, Tensor]:
    """Return the angles in degrees between feedback weights and their forward weights; empty for a symmetric network."""
    if not model.vector_field:
        return {}
    forward = [layer.weight for layer in model.layers]
    return {
        f"feedback.{index}": angle(model.feedback_weight(index), forward[index + 1])  # type: ignore[arg-type]
        for index in range(len(model.feedback))
    }


def steps_to_convergence(changes: Tensor) -> Tensor:
    """Return the first step after which no entry of ``changes`` ``[steps, layers]`` exceeds :data:`CONVERGED`.

    The result is ``steps`` if there is no such step.
    """
    moving = (changes.amax(dim=1) > CONVERGED).flip(0)
    still = moving.to(torch.int64).cumsum(0).eq(0).sum()  # steps at the end in which nothing moves
    return (len(changes) - still).to(changes.dtype)


def activity(network: Network, states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return, for each layer, the mean activity and the percentage of units at a bound of their activation."""
    metrics = {}
    for index, (state, activation) in enumerate(zip(states, network.activations, strict=True)):
        metrics[f"state{index + 1}/mean"] = state.mean()
        if activation.squash == "clip":
            low, high = activation.bounds
            metrics[f"state{index + 1}/saturated"] = ((state <= low) | (state >= high)).to(state.dtype).mean() * 100.0
    return metrics


class History:
    """Values at the end of each epoch, kept as device scalars until a figure needs them."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.values: dict[str, list[Tensor]] = {}

    def add(self, epoch: int, values: Mapping[str, Tensor]) -> None:
        """Append the values at the end of ``epoch`` (0-based)."""
        self.epochs.append(epoch + 1)
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def lists(self) -> dict[str, list[float]]:
        """Return all values as floats on the host."""
        return {name: torch.stack(values).tolist() for name, values in self.values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"epochs": list(self.epochs), "values": {name: torch.stack(values) for name, values in self.values.items()}}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned. The values go to ``device``, where later epochs add theirs."""
        self.epochs = list(state["epochs"])
        self.values = {name: list(values.to(device).unbind()) for name, values in state["values"].items()}
