"""Diagnostics of hard units during training: which can still be changed by a gradient, and which change their output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from altprop.nn.units.hard import LeveledUnit
from altprop.nn.units.levels import Levels

Visit = Callable[[str, LeveledUnit, Tensor, Tensor], None]
"""Takes the name of a module of hard units, the module, its inputs and its outputs."""


@dataclass(frozen=True)
class LayerRecord:
    """The diagnostics of one layer of hard units, on the CPU."""

    name: str
    levels: Levels
    input_counts: Tensor
    """``[bins]`` histogram of the inputs, without the outermost 0.1 % at either end."""
    input_edges: Tensor
    """``[bins + 1]`` edges of the histogram."""
    weight: Tensor
    """``[bins]`` factor by which the estimator multiplies a gradient toward the other side, at the middle of each bin."""
    level_shares: Tensor
    """``[levels]`` fraction of outputs at each level, from the lowest."""
    active: Tensor
    """``[epochs]`` fraction of units in the estimator's active zone after each epoch."""
    flipped: Tensor
    """``[epochs]`` fraction of units whose output differs from that of the previous epoch."""


class UnitDiagnostics:
    """Observes the hard units of a model on a fixed set of training images.

    A unit is *active* if the estimator's weight for its input is at least half of that at the center. It has *flipped* if its
    output differs from that of the previous epoch. Everything is computed on the device, without a host sync. The model must be
    in evaluation mode. With 0 ``images`` nothing is observed.
    """

    BINS = 80

    def __init__(self, images: int) -> None:
        self.number = images
        self.images: Tensor | None = None
        self.codes: dict[str, Tensor] = {}
        self.history: dict[str, list[Tensor]] = {}

    @property
    def needs_images(self) -> bool:
        """Whether :meth:`start` must still be called."""
        return self.number > 0 and self.images is None

    @property
    def started(self) -> bool:
        """Whether there are images."""
        return self.images is not None

    def start(self, model: nn.Module, images: Tensor) -> None:
        """Store the first ``images`` ``[batch, channels, height, width]`` and the present outputs of the units for them."""
        self.images = images[: self.number].clone()
        self._visit(model, self._store_codes)

    def epoch_end(self, model: nn.Module) -> dict[str, Tensor]:
        """Return ``units/<layer>/active_fraction`` and ``units/<layer>/flipped_fraction`` of every layer, as device scalars."""
        metrics: dict[str, Tensor] = {}

        def measure(name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
            assert unit.estimator is not None
            active = unit.estimator.active(inputs, unit.levels).float().mean()
            flipped = (unit.levels.encode(outputs) != self.codes[name]).float().mean()
            self._store_codes(name, unit, inputs, outputs)
            self.history.setdefault(name, []).append(torch.stack([active, flipped]))
            metrics[f"units/{name}/active_fraction"] = active
            metrics[f"units/{name}/flipped_fraction"] = flipped

        self._visit(model, measure)
        return metrics

    def layers(self, model: nn.Module) -> list[LayerRecord]:
        """Return the data of a figure, by layer in forward order."""
        records: list[LayerRecord] = []

        def record(name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
            assert unit.estimator is not None
            values = inputs.float().flatten().sort().values.cpu()
            cut = len(values) // 1000
            counts, edges = torch.histogram(values[cut : len(values) - cut], bins=self.BINS)
            middles = (edges[1:] + edges[:-1]) / 2
            center = 0.0 if unit.levels.rises == 1 else (unit.levels.low + unit.levels.high) / 2
            opposing = torch.where(middles > center, -1.0, 1.0)
            codes = unit.levels.encode(outputs).flatten().long().cpu()
            shares = torch.bincount(codes, minlength=unit.levels.rises + 1) / codes.numel()
            history = torch.stack(self.history[name]).cpu() if name in self.history else torch.zeros(0, 2)
            weight = unit.estimator.weight(middles, opposing, unit.levels)
            records.append(LayerRecord(name, unit.levels, counts, edges, weight, shares, history[:, 0], history[:, 1]))

        self._visit(model, record)
        return records

    def _store_codes(self, name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
        self.codes[name] = unit.levels.encode(outputs)

    def _visit(self, model: nn.Module, visit: Visit) -> None:
        assert self.images is not None
        with _visiting(model, visit):
            model(self.images)

    def state_dict(self) -> dict[str, Any]:
        """Return the images, the last outputs of the units for them, and the history."""
        return {
            "images": self.images,
            "codes": dict(self.codes),
            "history": {name: torch.stack(values) for name, values in self.history.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.images = None if state["images"] is None else state["images"].to(device)
        self.codes = {name: codes.to(device) for name, codes in state["codes"].items()}
        self.history = {name: list(values.to(device)) for name, values in state["history"].items()}


@contextmanager
def _visiting(model: nn.Module, visit: Visit) -> Iterator[None]:
    """Call ``visit`` for every module of hard units in a forward pass inside."""

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(unit: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
            assert isinstance(unit, LeveledUnit)
            visit(name, unit, inputs[0], outputs)

        return hook

    handles = [
        module.register_forward_hook(hook_for(name)) for name, module in model.named_modules() if isinstance(module, LeveledUnit)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
