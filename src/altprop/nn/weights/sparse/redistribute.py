"""How many of the freed units each tensor gets back (section 2.4). Integer arithmetic on the host, a handful of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def within(pruned: Sequence[int], free: Sequence[int]) -> list[int]:
    """Every tensor gets back what it lost, as far as its ``free`` units reach."""
    return [min(lost, room) for lost, room in zip(pruned, free)]


def proportional(pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator) -> list[int]:
    """All ``sum(pruned)`` units are handed out in proportion to the ``survivors`` of every tensor, at most ``free`` to each.

    Requests are rounded half to even; what rounding leaves over or takes too much goes to one tensor drawn at random; what a full
    tensor cannot take is handed out again. Where a pass places nothing although there is room, the shares are taken over the
    tensors that have room, so it always ends: with ``sum(result) < sum(pruned)`` only if everything is full. A negative remainder
    larger than the drawn tensor's request is clipped, as published, so the result may exceed ``sum(pruned)`` by a few.
    """
    total = sum(pruned)
    room = list(free)
    grown = [0] * len(room)
    weights: list[int] = list(survivors)
    drawn_from = list(range(len(room)))
    while (rest := total - sum(grown)) > 0 and any(room):
        if sum(weights) == 0:  # no survivors to be proportional to: the shares follow the room
            weights = list(room)
        requests = [round(weight / sum(weights) * rest) for weight in weights]
        remainder = rest - sum(requests)
        if remainder:
            place = drawn_from[int(torch.randint(len(drawn_from), (), generator=generator))]
            requests[place] = max(0, requests[place] + remainder)
        taken = [min(request, capacity) for request, capacity in zip(requests, room)]
        grown = [before + now for before, now in zip(grown, taken)]
        room = [before - now for before, now in zip(room, taken)]
        if not any(taken):
            drawn_from = [place for place, capacity in enumerate(room) if capacity]
            weights = [weight if capacity else 0 for weight, capacity in zip(weights, room)]
    return grown
