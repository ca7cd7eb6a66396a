"""Sparse weights whose number of non-zeros is fixed from the start, and the rule that never changes their positions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

from altprop.nn.weights.base import KEY
from altprop.nn.weights.layers import WeightLayer, value_for
from altprop.nn.weights.saved_run import load_masks, read_algorithm_state
from altprop.nn.weights.sparse.base import SparseOptions, SparseRule
from altprop.nn.weights.sparse.distribution import Distribution, sparsities
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.problems import ConfigError, Problem
from altprop.ranges import FilePath, Sparsity

log = logging.getLogger(__name__)


class _Sparsity(TypedDict):
    # a dictionary of its own, because Required[...] goes unnoticed at run time under "from __future__ import annotations"
    sparsity: Sparsity


class FixedBudgetOptions(_Sparsity, SparseOptions, total=False):
    """The options of :class:`FixedBudget`, which derived rules pass on."""

    distribution: Distribution
    mask_from: FilePath | None


class FixedBudget(SparseRule):
    """Masked weights that start with a given number of active units and keep it.

    Args:
        sparsity: Share of inactive units in every sparse tensor; a number, or a table from roles or layer names to numbers.
        distribution: How the sparsity varies over the tensors: ``equal`` (as published), ``uniform`` or ``erk``.
        mask_from: Checkpoint of another sparse run whose final mask to start from; None draws the positions at random.
        **options: Those of :class:`SparseRule`.
    """

    def __init__(
        self,
        *,
        sparsity: Sparsity,
        distribution: Distribution = "equal",
        mask_from: FilePath | None = None,
        **options: Unpack[SparseOptions],
    ) -> None:
        super().__init__(**options)
        self.sparsity = sparsity
        self.distribution: Distribution = distribution
        self.mask_from = mask_from

    @property
    def initial_stream(self) -> str:
        """A stream of its own for a run that takes the mask of another run but new random weights (section 2.8).

        The other run usually has the same seed, so the usual stream would give its initial weights instead of new ones.
        """
        return "init_of_new_weights" if self.mask_from is not None and self.weights_from is None else "init"

    def initial_sparsities(self, layers: list[WeightLayer]) -> tuple[list[WeightLayer], list[float]]:
        """Return the sparse layers and the sparsity of each.

        Layers that ``erk`` or ``uniform`` make dense are left out, because no weight could be moved there. Raises ``ConfigError``
        if none remains.
        """
        shapes = [layer.shape for layer in layers]
        targets = [value_for(layer, self.sparsity) for layer in layers]
        spread = sparsities(self.distribution, targets, shapes, ["first" in layer.roles for layer in layers])
        pairs = [(layer, value) for layer, value in zip(layers, spread) if self.distribution == "equal" or value > 0.0]
        if not pairs:
            description = f"{self.distribution} leaves no layer sparse"
            raise ConfigError([Problem(f"{KEY}.distribution", description, "equal, or more layers")])
        return [layer for layer, _ in pairs], [value for _, value in pairs]

    @property
    def has_saved_mask(self) -> bool:
        return self.mask_from is not None

    def refuse_masks(self, file: str, key: str) -> None:
        if self.mask_from is None:
            description = f"{file} is sparse, and its weights are zero at most positions that are drawn anew"
            raise ConfigError([Problem(key, description, "with the mask of that run", f"{key}={file} {KEY}.mask_from={file}")])

    def start_from_other_runs(self) -> None:
        """Copy weights and then the mask from the checkpoints named in the options (section 2.8)."""
        super().start_from_other_runs()
        if self.mask_from is not None:
            key = f"{KEY}.mask_from"
            shapes = [tuple(masking.mask.shape) for masking in self.weights.maskings]
            state = read_algorithm_state(self.mask_from, key)
            self.weights.mask.copy_(load_masks(self.weights.names, shapes, state, key))
            self.weights.recount()
            self.record = MovementRecord(self.weights.mask)
            if empty := [name for name, active in zip(self.weights.names, self.weights.active) if active == 0]:
                log.warning("%s: the mask has no active weight in %s", key, ", ".join(empty))

    def starts_empty(self, names: Sequence[str]) -> None:
        if self.mask_from is None:  # otherwise these positions are not used
            super().starts_empty(names)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from super().check(config, root)
        if config.get("distribution") == "erk" and isinstance(config.get("sparsity"), Mapping):
            allowed = "one number with distribution=erk, which spreads it over the layers"
            yield Problem(f"{KEY}.sparsity", "a table", allowed)
        if config.get("mask_from") and config.get("distribution", "equal") != "equal":
            description = "is set together with mask_from, which already determines the densities"
            yield Problem(f"{KEY}.distribution", description, "equal", f"{KEY}.distribution=equal")


class StaticSparse(FixedBudget):
    """Masks that are drawn at the start, or taken from another run, and never change."""

    cuda_graph: ClassVar[bool] = True
