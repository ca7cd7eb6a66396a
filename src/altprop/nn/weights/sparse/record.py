"""Metrics of a sparse network's structure: units moved, pruned soon after they were grown, ever active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from altprop.nn.weights.sparse.layout import true_indices

_SUMS = ("updates", "pruned", "grown", "pruned_again", "grown_before")


class MovementRecord:
    """Counts over one epoch, as device tensors.

    ``pruned_again`` are pruned units that the previous update had grown; ``unplaced`` are pruned units for which no tensor had
    room.
    """

    def __init__(self, mask: Tensor) -> None:
        self.ever_active = mask != 0
        self.just_grown = torch.zeros_like(self.ever_active)
        """Units that the last update grew, unless :attr:`grown` is set."""
        self.grown: Tensor | None = None
        """The same as flat indices, after an update that was recorded with :meth:`moved`."""
        self.sums = torch.zeros(len(_SUMS), dtype=torch.int64, device=mask.device)

    def moved(self, pruned: Tensor, grown: Tensor, alive: Tensor) -> None:
        """Record one update, given as flat indices. ``alive`` ``[units]`` are booleans of the units that are now active."""
        before = true_indices(self.just_grown) if self.grown is None else self.grown
        # the units that the last update grew were active until now, and an update never grows units that it has pruned
        again = len(before) - int(alive.index_select(0, before).count_nonzero())
        self.sums += torch.tensor([1, len(pruned), len(grown), again, len(before)], device=alive.device)
        self.grown = grown
        self.ever_active.index_fill_(0, grown, True)

    def moved_on_device(self, pruned: Tensor, grown: Tensor) -> None:
        """Record one update, given as booleans ``[units]``, without a host sync."""
        again, before = (self.just_grown & pruned).sum(), self.just_grown.sum()
        self.sums += torch.stack([torch.ones_like(again), pruned.sum(), grown.sum(), again, before])
        self.just_grown.copy_(grown)
        self.ever_active |= grown

    def epoch_end(self) -> dict[str, Tensor]:
        """Return the metrics of the epoch as device scalars, shares between 0 and 1, and reset the counts."""
        updates, pruned, grown, again, before = self.sums.unbind()
        metrics = {
            "updates": updates.clone(),
            "pruned": pruned / updates.clamp(min=1),
            "grown": grown / updates.clamp(min=1),
            "unplaced": (pruned - grown).clamp(min=0),
            "pruned_again": again / before.clamp(min=1),
            "ever_active": self.ever_active.float().mean(),
        }
        self.sums.zero_()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything on which later metrics depend. It does not depend on how updates were recorded."""
        just_grown = self.just_grown
        if self.grown is not None:
            just_grown = torch.zeros_like(just_grown).index_fill_(0, self.grown, True)
        return {"ever_active": self.ever_active, "just_grown": just_grown, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name in ("ever_active", "just_grown", "sums"):
            getattr(self, name).copy_(state[name])
        self.grown = None
