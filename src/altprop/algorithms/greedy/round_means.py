"""Training loss and accuracy of every worker at the end of a round, as the published script logs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RoundMeans:
    """Means over the samples of each worker's training steps since the last round ended."""

    def __init__(self, workers: int, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = [torch.zeros(3, dtype=exact, device=device) for _ in range(workers)]
        """Loss times samples, accuracy times samples, and samples."""
        self.means: dict[str, Tensor] = {}
        """``block<n>/round_loss`` and ``block<n>/round_accuracy`` of the round that ended last, for blocks that trained in it."""

    def add(self, worker: int, loss: Tensor, accuracy: Tensor, samples: int) -> None:
        """Count a training step of ``worker``."""
        sums = self.sums[worker]
        sums += torch.stack([loss.detach().to(sums), accuracy.to(sums), sums.new_ones(())]) * samples

    def end_round(self) -> None:
        """Compute the means of the round that ends now, and start the next one."""
        self.means = {}
        for worker, sums in enumerate(self.sums):
            if sums[2] > 0:
                self.means[f"block{worker + 1}/round_loss"] = sums[0] / sums[2]
                self.means[f"block{worker + 1}/round_accuracy"] = sums[1] / sums[2]
            sums.zero_()

    def state(self) -> list[Tensor]:
        """The sums, for an exact resume."""
        return [sums.clone() for sums in self.sums]

    def load_state(self, state: Sequence[Tensor]) -> None:
        """Restore what :meth:`state` returned; nothing from an older checkpoint, which has no sums."""
        for sums, saved in zip(self.sums, state, strict=False):
            sums.copy_(saved)
