"""The paper's learning-rate schedule: a cosine over the first epochs of a run, then a constant."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch.optim.lr_scheduler import LRScheduler

from altprop.ranges import LARGEST, NonNegativeFloat, PositiveInt


class CosineThenConstant(LRScheduler):
    """A cosine that does not rise again: torch's ``CosineAnnealingLR`` would, after ``T_max`` (section "Optimization").

    The rate of every group is ``eta_min + (lr - eta_min) (1 + cos(pi e / T_max)) / 2`` before step ``T_max`` and ``eta_min``
    from then on. ``T_max`` counts scheduler steps (epochs).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        T_max: PositiveInt,  # noqa: N803
        eta_min: NonNegativeFloat,
        last_epoch: Annotated[int, Ge(-1), Le(LARGEST)] = -1,
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch >= self.T_max:
            return [self.eta_min for _ in self.base_lrs]
        share = 0.5 * (1.0 + math.cos(math.pi * self.last_epoch / self.T_max))
        return [self.eta_min + (rate - self.eta_min) * share for rate in self.base_lrs]
