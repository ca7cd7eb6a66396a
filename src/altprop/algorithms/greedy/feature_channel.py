"""Bounded one-way queues between processes. They carry mini-batches of features and marks in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HEADER = 10  # kind, value, dtype, dimensions, up to six sizes
_DATA, _MARK = 0, 1


@dataclass(frozen=True)
class Batch:
    """Features ``[batch, …]`` and targets ``[batch]`` of one mini-batch, on the CPU."""

    features: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Mark:
    """A command between mini-batches, which applies after everything sent before it."""

    command: int
    value: int


class Outbox:
    """The sending end. If ``capacity`` messages have not been delivered, sending waits.

    ``group`` is a gloo process group, which delivers a message only when the receiver requests it.
    """

    def __init__(self, group: Any, receiver: int, capacity: int) -> None:
        self.group = group
        self.receiver = receiver
        self.capacity = capacity
        self.pending: deque[list[tuple[Any, Tensor]]] = deque()

    def send(self, message: Batch | Mark) -> None:
        """Queue ``message``. Waits while the queue is full."""
        while len(self.pending) >= self.capacity:
            for work, _ in self.pending.popleft():
                work.wait()
        if isinstance(message, Mark):
            parts = [torch.tensor([_MARK, message.command, message.value] + [0] * (_HEADER - 3))]
        else:
            shape = message.features.shape
            header = [_DATA, 0, _DTYPES.index(message.features.dtype), len(shape), *shape]
            header += [0] * (_HEADER - len(header))
            parts = [torch.tensor(header), message.features.cpu().contiguous(), message.targets.cpu().contiguous()]
        # keeps the tensors alive until they have been delivered
        self.pending.append([(self.group.send([part], self.receiver, tag), part) for tag, part in enumerate(parts)])

    def flush(self) -> None:
        """Wait until everything has been delivered."""
        while self.pending:
            for work, _ in self.pending.popleft():
                work.wait()


class Inbox:
    """The receiving end."""

    def __init__(self, group: Any, sender: int) -> None:
        self.group = group
        self.sender = sender
        self.header = torch.empty(_HEADER, dtype=torch.int64)

    def receive(self) -> Batch | Mark:
        """Wait for the next message and return it."""
        self.group.recv([self.header], self.sender, 0).wait()
        kind, value, dtype, dimensions, *sizes = self.header.tolist()
        if kind == _MARK:
            return Mark(value, dtype)
        features = torch.empty(sizes[:dimensions], dtype=_DTYPES[dtype])
        targets = torch.empty(sizes[0], dtype=torch.int64)
        self.group.recv([features], self.sender, 1).wait()
        self.group.recv([targets], self.sender, 2).wait()
        return Batch(features, targets)
