"""Sparse weights with a fixed budget of non-zeros: the base of every sparse rule, and the rule that never changes its masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import WeightsContext, WeightsRule
from altprop.nn.weights.flops import positions_per_weight
from altprop.nn.weights.layers import WeightLayer, select, value_for, weight_count, weight_layers
from altprop.nn.weights.penalties import Penalty, trained_among
from altprop.nn.weights.saved_run import load_masks, load_model_weights, load_momentum, read_algorithm_state
from altprop.nn.weights.sparse.distribution import Distribution, active_count, random_mask, sparsities
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.mask import MaskedWeights
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.problems import ConfigError, Problem

KEY = "algorithm.weights"


class SparseRule(WeightsRule):
    """Masked weights: ``W = theta * m`` with dense storage theta and a mask m of zeros and ones (section 2.1).

    ``sparsity`` is the share of inactive units in every sparse tensor, one number or a table from roles or layer names to
    numbers. ``layers`` and ``dense`` select layers by role or name: what is in the first and not in the second is sparse.
    ``granularity`` is the unit of a convolution: 4 weight, 3 kernel row, 2 kernel slice, 1 filter. ``mask_from`` and
    ``weights_from`` are checkpoints of other runs to start from; ``momentum`` also takes the optimizer's state from the latter.
    """

    def __init__(
        self,
        sparsity: float | Mapping[str, float],
        layers: Sequence[str] = ("conv", "linear"),
        dense: Sequence[str] = ("stem", "shortcut"),
        granularity: int = 4,
        distribution: Distribution = "equal",
        penalty: Penalty | None = None,
        mask_from: str | None = None,
        weights_from: str | None = None,
    ) -> None:
        self.sparsity = sparsity
        self.layer_selectors = tuple(layers)
        self.dense_selectors = tuple(dense)
        self.granularity = granularity
        self.distribution: Distribution = distribution
        self.penalty = penalty if penalty is not None else Penalty(0.0)
        self.mask_from = mask_from
        self.weights_from = weights_from
        self.momentum_from_weights = False
        self.started = False

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    @property
    def initial_stream(self) -> str:
        """Another stream than usual for the mask of another run with weights of this run's own (section 2.8).

        That run mostly has the same seed, so from the same stream the "new random" weights would be its initial ones.
        """
        return "init_of_new_weights" if self.mask_from is not None and self.weights_from is None else "init"

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Draw the masks and register them. Raises ``ConfigError`` where nothing is selected or a name fits no layer."""
        self.model = model
        self.context = context
        self.generator = device_generator(context)
        self.optimizers: list[torch.optim.Optimizer] = []
        layers, each = self._spread(select(model, self.layer_selectors, self.dense_selectors, KEY))
        is_chain = hasattr(model, "blocks") and hasattr(model, "input_shape")
        uses = positions_per_weight(model, model.input_shape) if is_chain else {}  # type: ignore[arg-type]
        mask = self.initial_mask(layers, each, context.generator)
        weight = layers[0].module.weight
        self.weights = MaskedWeights(layers, self.granularity, mask.to(context.device, weight.dtype))
        self.uses = torch.tensor([uses.get(name, 0) for name in self.weights.names], device=context.device)
        self.dense_flops = 2.0 * sum(uses.get(layer.name, 0) * weight_count(layer) for layer in weight_layers(model))
        self.other_parameters = sum(p.numel() for p in model.parameters()) - sum(w.numel() for w in self.weights.weights)
        self.record = MovementRecord(self.weights.mask)

    def _spread(self, layers: Sequence[WeightLayer]) -> tuple[list[WeightLayer], list[float]]:
        """The sparse layers and the sparsity of each.

        Layers that ``erk`` and ``uniform`` make dense are left out: there is nowhere to move a weight to.
        """
        shapes = [tuple(layer.module.weight.shape) for layer in layers]
        each = sparsities(self.distribution, [value_for(layer, self.sparsity) for layer in layers], shapes)
        kept = [(layer, value) for layer, value in zip(layers, each) if self.distribution == "equal" or value > 0.0]
        if not kept:
            raise ConfigError(
                [Problem(f"{KEY}.distribution", f"{self.distribution} leaves no layer sparse", "equal, or more layers")]
            )
        return [layer for layer, _ in kept], [value for _, value in kept]

    def initial_mask(self, layers: Sequence[WeightLayer], each: Sequence[float], generator: torch.Generator) -> Tensor:
        """The flat mask ``[units]`` to start from, on the CPU; ``each`` is the sparsity of every layer."""
        sizes = Layout.of([tuple(layer.module.weight.shape) for layer in layers], self.granularity).sizes
        return random_mask(sizes, [active_count(sparsity, size) for sparsity, size in zip(each, sizes)], generator)

    def optimizers_built(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = list(optimizers)

    def epoch_start(self, epoch: int) -> None:
        # only now, and not in attach: a run that is resumed or evaluated does not need the run that it once started from
        if not self.started:
            self.start_from_other_runs()
            self.started = True

    def start_from_other_runs(self) -> None:
        """Take over weights, momentum and masks from the checkpoints named in the options, in this order (section 2.8)."""
        if self.weights_from is not None:
            key = f"{KEY}.weights_from"
            state = read_algorithm_state(self.weights_from, key)
            load_model_weights(self.model, state, key)
            if self.momentum_from_weights:
                load_momentum(self.model, self.optimizers, state, key)
        if self.mask_from is not None:
            key = f"{KEY}.mask_from"
            shapes = [tuple(masking.mask.shape) for masking in self.weights.maskings]
            state = read_algorithm_state(self.mask_from, key)
            self.weights.mask.copy_(load_masks(self.weights.names, shapes, state, key))
            self.weights.recount()
            self.record.restart(self.weights.mask)

    # -- training --------------------------------------------------------------------------------------------------------------

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.penalty.coefficient:
            self.penalty.add_gradients(trained_among(self.weights.weights, list(parameters)))

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Densities, non-zero parameters and operations; ``forward_flops`` are those of one input, two per multiply-add."""
        weights = self.weights
        nonzero = weights.nonzero()
        sizes = torch.tensor([weight.numel() for weight in weights.weights], device=weights.device)
        metrics = {f"density/{name}": value for name, value in zip(weights.names, (nonzero / sizes).unbind())}
        metrics["nonzero_parameters"] = nonzero.sum() + self.other_parameters
        metrics["density"] = nonzero.sum() / sizes.sum()
        if self.dense_flops:
            forward = self.dense_flops - 2.0 * (self.uses * (sizes - nonzero)).sum()
            metrics["forward_flops"] = forward
            metrics["flops_share"] = forward / self.dense_flops
        if self.penalty.coefficient:
            metrics["penalty"] = self.penalty.value(weights.weights)
        return metrics

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        own = {} if self.generator is self.context.generator else {"generator": self.generator.get_state()}
        return {"started": self.started, "record": self.record.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.started = state["started"]
        self.weights.recount()
        self.record.load_state_dict(state["record"])
        if "generator" in state and self.generator is not self.context.generator:
            self.generator.set_state(state["generator"].cpu())

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems of the node ``algorithm.weights``."""
        yield from sparsity_problems(f"{KEY}.sparsity", config.get("sparsity"))
        granularity = config.get("granularity", 4)
        if granularity not in (1, 2, 3, 4):
            yield Problem(f"{KEY}.granularity", repr(granularity), "1, 2, 3 or 4", f"{KEY}.granularity=4")
        if config.get("distribution") == "erk" and isinstance(config.get("sparsity"), Mapping):
            yield Problem(f"{KEY}.sparsity", "a table", "one number with distribution=erk, which spreads it over the layers")
        if config.get("mask_from") and config.get("distribution", "equal") != "equal":
            yield Problem(f"{KEY}.distribution", "given beside mask_from", "the mask decides", f"{KEY}.distribution=equal")


class StaticSparse(SparseRule):
    """Masks that are drawn at the start, or taken from another run, and stay."""


def sparsity_problems(key: str, sparsity: object) -> Iterator[Problem]:
    """The problem of a sparsity, or a table of them, outside [0, 1)."""
    values = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
    for value in values:
        if isinstance(value, (int, float)) and not 0 <= value < 1:
            yield Problem(key, str(value), "a share of zeros from 0 to below 1", f"{key}=0.9")


def device_generator(context: WeightsContext) -> torch.Generator:
    """A generator on the run's device, the same on every rank: the context's own on a CPU."""
    if context.device.type == "cpu":
        return context.generator
    seed = int(torch.randint(1 << 62, (), generator=context.generator))
    return torch.Generator(context.device).manual_seed(seed)
