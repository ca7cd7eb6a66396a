"""The buffer of mini-batches between two workers in asynchronous greedy learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from altprop.problems import Problem

Sample = tuple[Tensor, Tensor]
"""Features and targets of one mini-batch."""


class ReplayBuffer:
    """A ring buffer of ``capacity`` (at least 1) mini-batches. It returns the most recent of the least used ones.

    Belilovsky et al. (2020), asynchronous form. As published, a full buffer treats its *oldest* batch, the next to be
    overwritten, as the most recent one; ``strict_lifo`` fixes that. A buffer of one batch always returns it and does not count.
    """

    def __init__(self, capacity: int, strict_lifo: bool = False) -> None:
        self.capacity = max(1, capacity)
        self.strict_lifo = strict_lifo
        self.slots: list[Sample | None] = [None] * self.capacity
        self.uses = [0] * self.capacity
        """0 for an empty slot, 1 for an unused batch, and one more for each use."""
        self.next = 0
        self.full = False

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Store a batch in place of the oldest one."""
        self.slots[self.next] = (features, targets)
        self.uses[self.next] = 1
        self.next = (self.next + 1) % self.capacity
        self.full = self.full or self.next == 0

    def get(self, max_uses: float = float("inf")) -> Sample | None:
        """Return the next batch to train on, or None if all batches have been used ``max_uses`` times."""
        filled = self.capacity if self.full else self.next
        if all(count > max_uses for count in self.uses[:filled]):
            return None
        if self.capacity == 1:
            return self.slots[0]
        least = min(self.uses[:filled])
        candidates = [slot for slot in range(filled) if self.uses[slot] == least]
        slot = max(candidates, key=lambda candidate: self._recency(candidate, filled))
        self.uses[slot] += 1
        return self.slots[slot]

    def _recency(self, slot: int, filled: int) -> int:
        older = slot >= self.next if self.strict_lifo else slot > self.next
        return slot - filled if older else slot

    def state_dict(self) -> dict[str, Any]:
        """Return the mini-batches and how often each was used."""
        return {"slots": list(self.slots), "uses": list(self.uses), "next": self.next, "full": self.full}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned, on ``device``."""
        self.slots = [None if slot is None else (slot[0].to(device), slot[1].to(device)) for slot in state["slots"]]
        self.uses = list(state["uses"])
        self.next, self.full = state["next"], state["full"]


def max_uses_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems of ``max_uses`` in the node of an algorithm."""
    max_uses = config.get("max_uses")
    if max_uses is not None and max_uses < 1:
        yield Problem("algorithm.max_uses", str(max_uses), "at least 1, or null for no limit", "algorithm.max_uses=null")
