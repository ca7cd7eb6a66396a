"""Loss scaling for fp16: the scale of the loss that keeps small gradients from vanishing in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossScaling:
    """How the loss is scaled in fp16.

    Dynamic: an overflow skips the update and halves the scale, but not below ``minimum``; ``growth_interval`` updates without one
    double it. The defaults are the rule of Belilovsky et al. (2020), which starts so high that the first updates are skipped.
    Static (``dynamic=False``): ``init_scale`` throughout, and no test for overflow.
    """

    init_scale: float = 2.0**32
    growth_interval: int = 1000
    minimum: float = 1.0
    dynamic: bool = True

    def build(self, device_type: str) -> torch.amp.GradScaler:
        """A scaler with this rule, in its initial state."""
        if not self.dynamic:
            return StaticScaler(device_type, self.init_scale)
        return _FlooredScaler(device_type, self)


class _FlooredScaler(torch.amp.GradScaler):
    """Torch's scaler, whose scale never falls below a minimum."""

    def __init__(self, device_type: str, rule: LossScaling) -> None:
        super().__init__(device_type, init_scale=rule.init_scale, growth_interval=rule.growth_interval)
        self.minimum = rule.minimum

    def update(self, new_scale: float | Tensor | None = None) -> None:
        super().update(new_scale)
        assert self._scale is not None
        self._scale.clamp_(min=self.minimum)


class StaticScaler(torch.amp.GradScaler):
    """A constant scale; gradients are divided by it and the update is always made."""

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
