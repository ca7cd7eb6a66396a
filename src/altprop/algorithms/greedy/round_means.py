"""Training loss and accuracy of every worker at the end of a round, as the published script logs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RoundMeans:
    """Means over the samples of each worker's training steps since the last round ended."""

    def __init__(self, workers: int, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = [torch.zeros(2, dtype=exact, device=device) for _ in range(workers)]
        """Loss times samples and accuracy times samples."""
        self.samples = [0] * workers
        self.means: dict[str, Tensor] = {}
        """``block<n>/round_loss`` and ``block<n>/round_accuracy`` of the round that ended last, for blocks that trained in it."""

    def add(self, worker: int, loss: Tensor, accuracy: Tensor, samples: int) -> None:
        """Count a training step of ``worker``."""
        self.sums[worker] += torch.stack([loss.detach(), accuracy.to(loss)]).to(self.sums[worker]) * samples
        self.samples[worker] += samples

    def end_round(self) -> None:
        """Compute the means of the round that ends now, and start the next one."""
        self.means = {}
        for worker, (sums, samples) in enumerate(zip(self.sums, self.samples, strict=True)):
            if samples:
                loss, accuracy = (sums / samples).unbind()
                self.means |= {f"block{worker + 1}/round_loss": loss, f"block{worker + 1}/round_accuracy": accuracy}
            sums.zero_()
        self.samples = [0] * len(self.samples)

    def state(self) -> dict[str, Any]:
        """The sums, for an exact resume."""
        return {"sums": [sums.clone() for sums in self.sums], "samples": list(self.samples)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned; nothing from an older checkpoint, which has no sums."""
        if not state:
            return
        for sums, saved in zip(self.sums, state["sums"], strict=True):
            sums.copy_(saved)
        self.samples = list(state["samples"])
