"""What a sparse network's structure did: units moved, pruned soon after they were grown, ever active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from altprop.nn.weights.sparse.layout import true_indices

_SUMS = ("updates", "pruned", "grown", "pruned_again", "grown_before")


class MovementRecord:
    """Counts over one epoch, as device tensors.

    ``pruned_again`` are units that the previous update had grown; ``unplaced`` the pruned units that no tensor had room for.
    """

    def __init__(self, mask: Tensor) -> None:
        self.ever_active = mask != 0
        self.just_grown = torch.zeros_like(self.ever_active)
        """What the last update grew, until one comes as indices; then :attr:`grown` says it, as indices."""
        self.grown: Tensor | None = None
        self.sums = torch.zeros(len(_SUMS), dtype=torch.int64, device=mask.device)

    def restart(self, mask: Tensor) -> None:
        """Begin anew with ``mask``, after it was replaced from outside."""
        self.__init__(mask)  # type: ignore[misc]

    def moved(self, pruned: Tensor, grown: Tensor, alive: Tensor) -> None:
        """One update, as flat indices; ``alive`` ``[units]`` are booleans of the units that are active now."""
        before = true_indices(self.just_grown) if self.grown is None else self.grown
        # what the last update grew was active until this one, and what this one pruned it did not grow again
        again = len(before) - int(alive.index_select(0, before).count_nonzero())
        self.sums += torch.tensor([1, len(pruned), len(grown), again, len(before)], device=alive.device)
        self.grown = grown
        self.ever_active.index_fill_(0, grown, True)

    def moved_on_device(self, pruned: Tensor, grown: Tensor) -> None:
        """One update, as booleans ``[units]``, without a host sync."""
        again, before = (self.just_grown & pruned).sum(), self.just_grown.sum()
        self.sums += torch.stack([torch.ones_like(again), pruned.sum(), grown.sum(), again, before])
        self.just_grown.copy_(grown)
        self.ever_active |= grown

    def epoch_end(self) -> dict[str, Tensor]:
        """Metrics of the epoch as device scalars; the counts start again at zero. Shares are between 0 and 1."""
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
        """Everything that later metrics depend on; the same from updates of either form."""
        just_grown = self.just_grown
        if self.grown is not None:
            just_grown = torch.zeros_like(just_grown).index_fill_(0, self.grown, True)
        return {"ever_active": self.ever_active, "just_grown": just_grown, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name in ("ever_active", "just_grown", "sums"):
            getattr(self, name).copy_(state[name])
        self.grown = None
