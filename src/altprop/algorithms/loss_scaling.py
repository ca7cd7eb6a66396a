"""Loss scaling for fp16, which keeps small gradients from vanishing in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from altprop.ranges import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class LossScaling:
    """How the loss is scaled in fp16.

    A dynamic scale is halved after an overflow, which also skips the update, and doubled after ``growth_interval`` updates
    without one. A static scale is constant, without a test for overflow. The defaults are the rule of Belilovsky et al. (2020),
    which starts so high that the first updates are skipped.
    """

    init_scale: PositiveFloat = 2.0**32
    growth_interval: PositiveInt = 1000
    """Updates without an overflow before the scale is doubled."""
    minimum: PositiveFloat = 1.0
    """Lower bound of a dynamic scale."""
    dynamic: bool = True
    """False for a static scale of ``init_scale``."""

    def build(self, device_type: str) -> torch.amp.GradScaler:
        """Return a scaler with this rule in its initial state."""
        if not self.dynamic:
            return StaticScaler(device_type, self.init_scale)
        return _FlooredScaler(device_type, self)


class _FlooredScaler(torch.amp.GradScaler):
    """Torch's scaler with a lower bound on the scale."""

    def __init__(self, device_type: str, rule: LossScaling) -> None:
        super().__init__(device_type, init_scale=rule.init_scale, growth_interval=rule.growth_interval)
        self.minimum = rule.minimum

    def update(self, new_scale: float | Tensor | None = None) -> None:
        super().update(new_scale)
        assert self._scale is not None
        self._scale.clamp_(min=self.minimum)


class StaticScaler(torch.amp.GradScaler):
    """A scaler with a constant scale that never skips an update."""

    def __init__(self, device_type: str, scale: float) -> None:
        super().__init__(device_type)
        self.constant = scale

    def scale(self, outputs: Any) -> Any:
        return outputs * self.constant

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(self.constant)

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        optimizer.step(*args, **kwargs)
        return None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        pass

    def get_scale(self) -> float:
        return self.constant

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
