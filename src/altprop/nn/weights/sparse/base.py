"""Sparse weights: the base of every rule that multiplies weights by masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import KEY, SavedWeights, WeightsContext, WeightsRule
from altprop.nn.weights.costs import WeightCosts
from altprop.nn.weights.layers import WeightLayer, left_out, select
from altprop.nn.weights.penalties import Penalty, trained_among
from altprop.nn.weights.saved_run import (
    MASK,
    computed_weights,
    load_momentum,
    load_weights,
    own_tensors,
    read_checkpoint_state,
    saved_masks,
)
from altprop.nn.weights.sparse.distribution import active_count, random_mask
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.mask import MaskedWeights
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.problems import ConfigError, Problem
from altprop.ranges import FilePath, Text

EMPTY = "a smaller sparsity, units of fewer weights (granularity), or dense weights there"
"""What else can be configured if layers have no active unit."""


class SparseOptions(TypedDict, total=False):
    """The options of :class:`SparseRule`, which derived rules pass on."""

    layers: Sequence[Text]
    dense: Sequence[Text]
    granularity: Literal[1, 2, 3, 4]
    penalty: Penalty | None
    weights_from: FilePath | None


class SparseRule(WeightsRule):
    """Masked weights: ``W = theta * m`` with dense storage theta and a mask m of zeros and ones (section 2.1).

    Args:
        layers: Roles or names of the layers that may be sparse.
        dense: Roles or names of those among them that are not.
        granularity: The unit of a convolution that a mask entry covers: 4 weight, 3 kernel row, 2 kernel slice, 1 filter.
        penalty: Penalty on the dense storage; None for no penalty.
        weights_from: Checkpoint of another run of the same model to start from: the weights that its network computed with.
    """

    momentum_from_weights: ClassVar[bool] = False
    """Whether the optimizer's state is taken from the checkpoint ``weights_from``, too."""

    def __init__(
        self,
        *,
        layers: Sequence[Text] = ("conv", "linear"),
        dense: Sequence[Text] = ("stem", "shortcut"),
        granularity: Literal[1, 2, 3, 4] = 4,
        penalty: Penalty | None = None,
        weights_from: FilePath | None = None,
    ) -> None:
        self.layer_selectors = tuple(layers)
        self.dense_selectors = tuple(dense)
        self.granularity = granularity
        self.penalty = penalty if penalty is not None else Penalty(coefficient=0.0)
        self.weights_from = weights_from
        self.started = False

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Draw the masks and register them. Raises ``ConfigError`` if nothing is selected or a name fits no layer."""
        self.model = model
        self.context = context
        self.generator = device_generator(context)
        self.optimizers: list[torch.optim.Optimizer] = []
        layers, sparsities = self.initial_sparsities(select(model, self.layer_selectors, self.dense_selectors))
        self.left_out = left_out(model)
        self.costs = WeightCosts(model, layers, context.device)
        sizes = Layout.of([layer.shape for layer in layers], self.granularity).sizes
        counts = [active_count(sparsity, size) for sparsity, size in zip(sparsities, sizes)]
        if empty := [layer.name for layer, count in zip(layers, counts) if count == 0]:
            self.starts_empty(empty)
        mask = random_mask(sizes, counts, context.generator)
        dtype = next(layers[0].module.parameters()).dtype
        self.weights = MaskedWeights(layers, self.granularity, mask.to(context.device, dtype))
        self.record = MovementRecord(self.weights.mask)

    def starts_empty(self, names: Sequence[str]) -> None:
        """Raise ``ConfigError``, because the layers ``names`` would start without an active unit and pass no signal."""
        description = f"leaves nothing active in {', '.join(names)}"
        raise ConfigError(
            [Problem(f"{KEY}.sparsity", description, EMPTY, f"{KEY}.dense=[{','.join([*self.dense_selectors, *names])}]")]
        )

    def initial_sparsities(self, layers: list[WeightLayer]) -> tuple[list[WeightLayer], list[float]]:
        """Return those of the selected ``layers`` to mask, and the sparsity with which each starts. Here all start dense."""
        return layers, [0.0] * len(layers)

    def optimizers_built(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = list(optimizers)

    def epoch_start(self, epoch: int) -> None:
        # not in attach, so that a resumed or evaluated run does not need the runs that it once started from
        if not self.started:
            self.start_from_other_runs()
            self.started = True

    def start_from_other_runs(self) -> None:
        """Copy weights and, if the rule wants it, momentum from the checkpoint ``weights_from`` (section 2.8)."""
        if self.weights_from is not None:
            key = f"{KEY}.weights_from"
            state = read_checkpoint_state(self.weights_from, key)
            if saved_masks(state["algorithm"]):
                self.take_masks(state, key)
            weights = computed_weights(state, self.model, key, with_masks=not self.has_saved_mask)
            load_weights(own_tensors(self.model), weights, key)
            if self.momentum_from_weights:
                load_momentum(self.model, self.optimizers, state["algorithm"], key)

    def take_masks(self, state: Mapping[str, Any], key: str) -> None:
        """Called before the weights of the sparse network in the checkpoint ``state`` are copied. Refuses it unless overridden.

        Raises ``ConfigError``.
        """
        self.refuse_masks(str(self.weights_from), key)

    # -- training --------------------------------------------------------------------------------------------------------------

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.penalty.coefficient:
            self.penalty.add_gradients(trained_among(self.weights.weights, list(parameters)))

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Return the density of every layer, and the metrics of :class:`~altprop.nn.weights.costs.WeightCosts`."""
        weights = self.weights
        nonzero = weights.nonzero()
        metrics = {f"density/{name}": value for name, value in zip(weights.names, (nonzero / self.costs.sizes).unbind())}
        metrics.update(self.costs.metrics(nonzero))
        if self.penalty.coefficient:
            metrics["penalty"] = self.penalty.value(weights.weights)
        return metrics

    # -- weights of other runs -------------------------------------------------------------------------------------------------

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return ``theta * m`` of every weight; see :meth:`.WeightsRule.computed_weights`."""
        if any(set(parts) != {"original", MASK} for parts in saved.stored.values()):
            raise NotImplementedError
        return {name: latent * full_mask(saved.stored[name][MASK], latent) for name, latent in saved.latents.items()}

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
        """Yield the problems of the node ``algorithm.weights``."""
        yield from sparsity_problems(f"{KEY}.sparsity", config.get("sparsity"))
        granularity = config.get("granularity", 4)
        if granularity not in (1, 2, 3, 4):
            yield Problem(f"{KEY}.granularity", repr(granularity), "1, 2, 3 or 4", f"{KEY}.granularity=4")


def full_mask(mask: Tensor, weight: Tensor) -> Tensor:
    """Return ``mask``, which has the first dimensions of ``weight``, in a shape that broadcasts to it."""
    return mask.reshape(*mask.shape, *(1 for _ in range(weight.dim() - mask.dim())))


def reset_inactive_state(
    weights: Sequence[nn.Parameter], keep: Sequence[Tensor], optimizers: Iterable[torch.optim.Optimizer]
) -> None:
    """Multiply every optimizer's tensors of a weight's shape (momentum, second moments) by that weight's mask in ``keep``."""
    for optimizer in optimizers:
        for weight, mask in zip(weights, keep):
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(mask)


def sparsity_problems(key: str, sparsity: object) -> Iterator[Problem]:
    """Yield a problem for every value of ``sparsity``, a number or a table of numbers, outside [0, 1)."""
    values = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
    for value in values:
        if isinstance(value, (int, float)) and not 0 <= value < 1:
            yield Problem(key, str(value), "a share of zeros from 0 to below 1", f"{key}=0.9")


def device_generator(context: WeightsContext) -> torch.Generator:
    """Return a generator on the run's device with the same state on every rank. On a CPU it is the context's own."""
    if context.device.type == "cpu":
        return context.generator
    seed = int(torch.randint(1 << 62, (), generator=context.generator))
    return torch.Generator(context.device).manual_seed(seed)
