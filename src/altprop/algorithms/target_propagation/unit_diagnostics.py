"""What hard units do over training: which of them a gradient can still move, and which change sides."""

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
"""Called with a unit's name, the unit, its inputs and its outputs."""


@dataclass(frozen=True)
class LayerRecord:
    """One layer of hard units, on the host: the histogram of its inputs, the share of each level, and its history by epoch."""

    name: str
    levels: Levels
    input_counts: Tensor
    """``[bins]`` numbers of inputs, the outermost 0.1 % at either end left out."""
    input_edges: Tensor
    """``[bins + 1]``"""
    weight: Tensor
    """``[bins]`` what the estimator multiplies the gradient by at the middle of each bin, toward the other side."""
    level_shares: Tensor
    """``[levels]`` share of outputs at each level, from the lowest."""
    active: Tensor
    """``[epochs]`` fraction of units in the estimator's active zone after each epoch."""
    flipped: Tensor
    """``[epochs]`` fraction of units whose output is not what it was an epoch before."""


class UnitDiagnostics:
    """Watches the hard units of a model on the same few training images; 0 ``images`` watch nothing.

    A unit is *active* where its estimator's weight is at least half of that at the center, and it has *flipped* when its output
    is another level than an epoch before. All on the device, without a host sync. The model must be in evaluation mode.
    """

    BINS = 80

    def __init__(self, images: int) -> None:
        self.number = images
        self.images: Tensor | None = None
        self.codes: dict[str, Tensor] = {}
        self.history: dict[str, list[Tensor]] = {}

    @property
    def wants_images(self) -> bool:
        """Whether :meth:`watch` is still to be called."""
        return self.number > 0 and self.images is None

    @property
    def watching(self) -> bool:
        """Whether there are images to look at."""
        return self.images is not None

    def watch(self, model: nn.Module, images: Tensor) -> None:
        """Keep the first ``images`` ``[batch, channels, height, width]`` and what the units say about them now."""
        self.images = images[: self.number].clone()
        self._visit(model, self._keep_codes)

    def epoch_end(self, model: nn.Module) -> dict[str, Tensor]:
        """Fractions of every layer, as device scalars: ``units/<layer>/active_fraction`` and ``…/flipped_fraction``."""
        metrics: dict[str, Tensor] = {}

        def measure(name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
            assert unit.estimator is not None
            active = unit.estimator.active(inputs, unit.levels).float().mean()
            flipped = (unit.levels.encode(outputs) != self.codes[name]).float().mean()
            self._keep_codes(name, unit, inputs, outputs)
            self.history.setdefault(name, []).append(torch.stack([active, flipped]))
            metrics[f"units/{name}/active_fraction"] = active
            metrics[f"units/{name}/flipped_fraction"] = flipped

        self._visit(model, measure)
        return metrics

    def layers(self, model: nn.Module) -> list[LayerRecord]:
        """Everything a figure shows, layer by layer in forward order."""
        records: list[LayerRecord] = []

        def look(name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
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

        self._visit(model, look)
        return records

    def _keep_codes(self, name: str, unit: LeveledUnit, inputs: Tensor, outputs: Tensor) -> None:
        self.codes[name] = unit.levels.encode(outputs)

    def _visit(self, model: nn.Module, visit: Visit) -> None:
        assert self.images is not None
        with _visiting(model, visit):
            model(self.images)

    def state_dict(self) -> dict[str, Any]:
        """The images, what the units said about them last, and the history."""
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
    """Call ``visit`` for every hard unit that a forward pass inside this context runs through."""

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
