"""How many of the freed units each tensor gets back (section 2.4). Integer arithmetic on the host, on a handful of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Redistribute:
    """Decides how many units each tensor gets back."""

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        """Return the number of units to grow in every tensor, at most ``free``. ``generator`` is on the host.

        The arguments hold one number per tensor: units pruned by this update, active units left, and free units.
        """
        raise NotImplementedError


class WithinTensor(Redistribute):
    """Every tensor gets back what it lost, as far as its free units allow (SET, DeepR)."""

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        return [min(lost, room) for lost, room in zip(pruned, free)]


class ProportionalToSurvivors(Redistribute):
    """The freed units go to the tensors in proportion to what survived in them (dynamic sparse, section 2.4).

    Requests are rounded half to even. What rounding leaves over, or hands out too much, goes to one tensor drawn at random. What
    a full tensor cannot take is handed out again. If a pass places nothing although there is room, only the tensors with room
    share the rest. So the loop always ends, and ``sum(result) < sum(pruned)`` only if all tensors are full. A negative remainder
    larger than the drawn tensor's request is clipped, as published, so the result may exceed ``sum(pruned)`` by a few.
    """

    def counts(
        self, pruned: Sequence[int], survivors: Sequence[int], free: Sequence[int], generator: torch.Generator
    ) -> list[int]:
        total = sum(pruned)
        room = list(free)
        grown = [0] * len(room)
        weights: list[int] = list(survivors)
        candidates = list(range(len(room)))
        while (rest := total - sum(grown)) > 0 and any(room):
            if sum(weights) == 0:  # no survivors to be proportional to: the shares follow the room
                weights = list(room)
            requests = [round(weight / sum(weights) * rest) for weight in weights]
            remainder = rest - sum(requests)
            if remainder:
                place = candidates[int(torch.randint(len(candidates), (), generator=generator))]
                requests[place] = max(0, requests[place] + remainder)
            taken = [min(request, capacity) for request, capacity in zip(requests, room)]
            grown = [before + now for before, now in zip(grown, taken)]
            room = [before - now for before, now in zip(room, taken)]
            if not any(taken):
                candidates = [place for place, capacity in enumerate(room) if capacity]
                weights = [weight if capacity else 0 for weight, capacity in zip(weights, room)]
        return grown


def revived(counts: Sequence[int], survivors: Sequence[int], free: Sequence[int]) -> list[int]:
    """Return ``counts`` of units to grow, with one for every tensor that would have no active unit.

    It comes from the tensor that gets most, if that one can spare it; otherwise the network gets one unit more.
    """
    result = list(counts)
    for place, (count, left, room) in enumerate(zip(counts, survivors, free)):
        if count + left == 0 and room > 0:
            giver = max(range(len(result)), key=lambda other: result[other])
            if result[giver] and survivors[giver] + result[giver] > 1:
                result[giver] -= 1
            result[place] = 1
    return result
