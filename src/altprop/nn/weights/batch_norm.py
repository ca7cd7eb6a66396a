"""Re-estimation of batch-norm statistics on the last mini-batches of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.optim.swa_utils import update_bn


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether ``model`` has a batch norm with running statistics."""
    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules())


def reestimate(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Replace the running statistics of every batch norm by their plain mean over the mini-batches ``inputs``."""
    if not inputs:
        return
    modes = [(module, module.training) for module in model.modules()]  # parts of a model may be frozen in eval mode
    with torch.no_grad(), parametrize.cached():
        update_bn(inputs, model)
    for module, training in modes:
        module.training = training


class RecentInputs:
    """The last ``count`` mini-batches of an epoch. Its owner sets :attr:`recording` while they are due."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.recording = False
        self._inputs: list[Tensor] = []

    def observe(self, inputs: Tensor) -> None:
        """Store a copy of ``inputs`` while :attr:`recording`."""
        if self.recording:
            self._inputs.append(inputs.detach().clone())

    def take(self) -> list[Tensor]:
        """Return the stored mini-batches and forget them."""
        inputs, self._inputs = self._inputs, []
        return inputs

    def state_dict(self) -> dict[str, Any]:
        """The stored mini-batches. Empty except in a checkpoint within the last ``count`` steps of an epoch."""
        return {"inputs": list(self._inputs)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._inputs = [inputs.to(device) for inputs in state["inputs"]]
