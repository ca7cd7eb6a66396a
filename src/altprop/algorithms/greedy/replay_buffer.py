"""The buffer of mini-batches between two workers of asynchronous greedy learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from altprop.problems import Problem

Sample = tuple[Tensor, Tensor]
"""Features and targets of one mini-batch."""


class ReplayBuffer:
    """A ring of ``capacity`` mini-batches (at least 1), read by priority: the least used first, among those the most recent.

    Belilovsky et al. (2020), asynchronous form. Use counts start at 1, so that ``max_reuse`` = R allows R - 1 uses of each
    batch. As published, a full buffer takes its *oldest* batch, the next to be overwritten, for the most recent one;
    ``strict_lifo`` fixes that. A buffer of one batch always returns it and does not count.
    """

    def __init__(self, capacity: int, strict_lifo: bool = False) -> None:
        self.capacity = max(1, capacity)
        self.strict_lifo = strict_lifo
        self.slots: list[Sample | None] = [None] * self.capacity
        self.uses = [0] * self.capacity
        self.next = 0
        self.full = False

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Write a batch over the oldest one."""
        self.slots[self.next] = (features, targets)
        self.uses[self.next] = 1
        self.next = (self.next + 1) % self.capacity
        self.full = self.full or self.next == 0

    def get(self, max_reuse: float = float("inf")) -> Sample | None:
        """The batch whose turn it is, or None where none is left that was used less than ``max_reuse`` times."""
        filled = self.capacity if self.full else self.next
        if all(count >= max_reuse for count in self.uses[:filled]):
            return None
        if self.capacity == 1:
            return self.slots[0]
        least = min(self.uses[:filled])
        chosen = max((slot for slot in range(filled) if self.uses[slot] == least), key=lambda slot: self._recency(slot, filled))
        self.uses[chosen] += 1
        return self.slots[chosen]

    def _recency(self, slot: int, filled: int) -> int:
        older = slot >= self.next if self.strict_lifo else slot > self.next
        return slot - filled if older else slot

    def state_dict(self) -> dict[str, Any]:
        """The mini-batches themselves, and how often each was used."""
        return {"slots": list(self.slots), "uses": list(self.uses), "next": self.next, "full": self.full}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned, on ``device``."""
        self.slots = [None if slot is None else (slot[0].to(device), slot[1].to(device)) for slot in state["slots"]]
        self.uses = list(state["uses"])
        self.next, self.full = state["next"], state["full"]


def reuse_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of ``max_reuse`` in the node of an algorithm."""
    max_reuse = config.get("max_reuse")
    if max_reuse is not None and max_reuse < 2:
        allowed = "at least 2 (counts start at 1, so 2 is one use), or null"
        yield Problem("algorithm.max_reuse", str(max_reuse), allowed, "algorithm.max_reuse=null")
