"""Running means of the metrics that steps return, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from altprop.training.processes import mean_over_processes


@dataclass(frozen=True)
class NotFinite:
    """The first value of ``loss`` that is not finite, ``steps_ago`` steps back (0: the newest one)."""

    value: float
    steps_ago: int


class Meter:
    """Sample-weighted means of device scalars over all ``world_size`` processes, which must call each method at the same steps.

    A step only appends tensors to lists. :meth:`flush` transfers them and adds them up in float64. It is called every few steps,
    always at the same steps of a run, so that means do not depend on where a run was interrupted.
    """

    def __init__(self, world_size: int = 1) -> None:
        self.world_size = world_size
        self.reset()

    def reset(self) -> None:
        """Forget everything. Called after each record."""
        self._values: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, Tensor], count: int) -> None:
        """Add the batch means ``values`` of ``count`` samples. No host sync."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
            self._weights.setdefault(name, []).append(count)

    def flush(self) -> NotFinite | None:
        """Add the pending values to the sums. Returns the first loss among them that is not finite."""
        broken = None
        for name, values in self._pending().items():
            if name == "loss":
                broken = _first_not_finite(values)
            weights = torch.tensor(self._weights[name], dtype=torch.float64)
            self._sums[name] = self._sums.get(name, 0.0) + float(values.double() @ weights)
            self._counts[name] = self._counts.get(name, 0) + sum(self._weights[name])
        self._values.clear()
        self._weights.clear()
        return broken

    def check(self) -> NotFinite | None:
        """The first pending loss that is not finite, without adding anything up."""
        losses = self._pending().get("loss")
        return None if losses is None else _first_not_finite(losses)

    def means(self) -> dict[str, float]:
        """The means over everything flushed since the last reset."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def _pending(self) -> dict[str, Tensor]:
        """The pending values ``[steps]`` of every metric, on the host."""
        on_device = {name: torch.stack([value.detach().reshape(()) for value in values]) for name, values in self._values.items()}
        return {name: mean_over_processes(values, self.world_size) for name, values in on_host(on_device).items()}

    def state_dict(self) -> dict[str, Any]:
        """Sums and pending values, so that a resumed run adds them up in the same groups."""
        return {
            "values": self._pending(),
            "weights": {name: list(weights) for name, weights in self._weights.items()},
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned. The pending values go to ``device``, where later steps add theirs."""
        self._values = {name: list(values.to(device).unbind()) for name, values in state["values"].items()}
        self._weights = {name: list(weights) for name, weights in state["weights"].items()}
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"])


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy 1-d tensors to the host, with one transfer for all of one dtype and device instead of one for each."""
    alike: dict[tuple[torch.dtype, torch.device], list[str]] = {}
    for name, values in tensors.items():
        alike.setdefault((values.dtype, values.device), []).append(name)
    copies: dict[str, Tensor] = {}
    for names in alike.values():
        joined = torch.cat([tensors[name] for name in names]).cpu()
        copies |= zip(names, joined.split([len(tensors[name]) for name in names]), strict=True)
    return {name: copies[name] for name in tensors}


def _first_not_finite(values: Tensor) -> NotFinite | None:
    bad = (~torch.isfinite(values)).nonzero()
    if not len(bad):
        return None
    first = int(bad[0])
    return NotFinite(float(values[first]), len(values) - 1 - first)
