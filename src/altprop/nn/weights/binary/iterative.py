"""Iterative training: one more layer becomes binary every few epochs (Lan 2021, section 2.3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from torch import nn

from altprop.nn.weights.base import KEY, SavedWeights, WeightsContext
from altprop.nn.weights.binary.base import Binary, BinaryOptions
from altprop.nn.weights.binary.orders import FROM_SENSITIVITY, Order, order_problems, read_order, resolve_order
from altprop.problems import Problem
from altprop.ranges import FilePath, PositiveInt

log = logging.getLogger(__name__)


def num_binary_layers(epoch: int, epochs_per_layer: int, layers: int) -> int:
    """Return how many of ``layers`` layers are binary in the 0-based ``epoch``: ``min(L, floor(e / E_l) + 1)``."""
    return min(layers, epoch // epochs_per_layer + 1)


class IterativeBinary(Binary):
    """One layer is binary at the start, and one more every ``epochs_per_layer`` epochs until all are. None becomes float again.

    Nothing else changes when a layer becomes binary: optimizer state, norm statistics and latent weights carry over.

    Args:
        epochs_per_layer: Epochs until the next layer becomes binary.
        order: The order in which layers become binary (:mod:`.orders`).
        reverse: Walk the order from its end.
        order_file: File that ``order: from_sensitivity`` reads, once, before the first step.
        **options: Those of :class:`Binary`.
    """

    moves: ClassVar[bool] = True
    cuda_graph: ClassVar[bool] = False

    def __init__(
        self,
        *,
        epochs_per_layer: PositiveInt,
        order: Order = "forward",
        reverse: bool = False,
        order_file: FilePath | None = None,
        **options: Unpack[BinaryOptions],
    ) -> None:
        super().__init__(**options)
        if epochs_per_layer < 1:
            raise ValueError(f"epochs_per_layer must be at least 1, not {epochs_per_layer}")
        self.epochs_per_layer = epochs_per_layer
        self.order = order
        self.reverse = reverse
        self.order_file = order_file
        self.positions: tuple[int, ...] = ()

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Register the parametrizations and fix the order. Raises ``ConfigError`` if the order does not fit the layers."""
        super().attach(model, context)
        if self.order != FROM_SENSITIVITY:
            self._set_order(resolve_order(self.order, self.names, context.generator, f"{KEY}.order", self.all_names))
        count = num_binary_layers(context.total_epochs - 1, self.epochs_per_layer, len(self.names))
        log.info("%d of %d layers become binary in %d epochs", count, len(self.names), context.total_epochs)

    def first_epoch(self) -> None:
        if self.order == FROM_SENSITIVITY:
            self._set_order(read_order(str(self.order_file), self.names, f"{KEY}.order_file"))
        log.info("layers become binary in this order: %s", ", ".join(self.names[place - 1] for place in self.positions))
        super().first_epoch()

    def _set_order(self, order: tuple[int, ...]) -> None:
        self.positions = order[::-1] if self.reverse else order

    def binary_at(self, epoch: int) -> list[bool]:
        binary = self.positions[: num_binary_layers(epoch, self.epochs_per_layer, len(self.names))]
        return [place in binary for place in range(1, len(self.names) + 1)]

    @property
    def complete(self) -> bool:
        """Whether as many layers are binary as at the end of the run (section 9, trap 5)."""
        return self.epoch is not None and self.binary_at(self.epoch) == self.binary_at(self.context.total_epochs - 1)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "positions": list(self.positions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.positions = tuple(state["positions"])  # a run keeps the order that it began with, even if the file has changed
        super().load_state_dict(state)

    @classmethod
    def saved_places(cls, saved: SavedWeights) -> Sequence[int]:
        state, epochs_per_layer = saved.state, saved.options["epochs_per_layer"]
        if state["epoch"] is None:
            return ()
        return state["positions"][: num_binary_layers(state["epoch"], epochs_per_layer, len(saved.stored))]

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        yield from order_problems(config, KEY)
