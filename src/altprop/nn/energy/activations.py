"""Activations of energy-based networks: bounded, monotone, without parameters (Laborieux et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as functional
from torch import Tensor

ActivationName = Literal["shifted_sigmoid", "hard_sigmoid", "half_slope_hard_sigmoid", "centered_hard_sigmoid", "tanh", "sigmoid"]


@dataclass(frozen=True)
class Activation:
    """``squash(scale * (u - center))``, elementwise.

    In this form a relaxation can fold ``scale`` and ``center`` into drives that it computes once. ``squash`` is the logistic
    function, tanh, a clip to ``bounds``, or the identity.
    """

    squash: Literal["logistic", "tanh", "clip", "identity"]
    scale: float = 1.0
    center: float = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, potential: Tensor) -> Tensor:
        """Return the activation of ``potential``, any shape; differentiable."""
        scaled = potential - self.center if self.center else potential
        scaled = scaled * self.scale if self.scale != 1.0 else scaled
        if self.squash == "logistic":
            return scaled.sigmoid()
        if self.squash == "tanh":
            return scaled.tanh()
        if self.squash == "clip":
            return functional.hardtanh(scaled, *self.bounds)
        return scaled

    def squasher(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function that writes ``squash`` of ``scaled = scale * (u - center)`` to ``out``, without a graph.

        It takes ``(scaled, out)``, which may be the same tensor, and returns ``out``. ``squash`` is looked up here, once.
        """
        if self.squash == "logistic":
            return lambda scaled, out: torch.sigmoid(scaled, out=out)
        if self.squash == "tanh":
            return lambda scaled, out: torch.tanh(scaled, out=out)
        if self.squash == "clip":
            low, high = self.bounds
            return lambda scaled, out: torch.clamp(scaled, low, high, out=out)
        return lambda scaled, out: out if out is scaled else out.copy_(scaled)

    def slope(self, potential: Tensor) -> Tensor:
        """Return the derivative at ``potential``; 0 at the kinks of a clip."""
        with torch.enable_grad():
            leaf = potential.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(leaf).sum(), leaf)
        return slope


IDENTITY = Activation("identity")
"""The activation of an output layer whose scores are logits."""

ACTIVATIONS: dict[str, Activation] = {
    "shifted_sigmoid": Activation("logistic", scale=4.0, center=0.5),  # slope 1 at 1/2; "mysig" in the paper's code
    "hard_sigmoid": Activation("clip"),  # slope 1
    "half_slope_hard_sigmoid": Activation("clip", scale=0.5),  # slope 1/2; "my_hard_sig" in the paper's code
    "centered_hard_sigmoid": Activation("clip", bounds=(-0.5, 0.5)),  # "ctrd_hard_sig" in the paper's code
    "tanh": Activation("tanh"),
    "sigmoid": Activation("logistic"),
}

assert set(ACTIVATIONS) == set(get_args(ActivationName))
