"""Tied weights: many positions of a tensor share a few free values by a fixed random allocation (section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from altprop.nn.weights.base import KEY, SavedWeights, WeightsContext, WeightsRule
from altprop.nn.weights.layers import (
    left_out,
    register_on_weight,
    require_plain_weights,
    select,
    value_for,
    weight_count,
)
from altprop.nn.weights.penalties import Penalty, trained_among
from altprop.nn.weights.sparse.base import sparsity_problems
from altprop.problems import ConfigError, Problem
from altprop.ranges import Sparsity, Text

Level = Literal["element", "kernel"]


def bank_size(sparsity: float, positions: int) -> int:
    """Return the number of free values (or kernels): ``round((1 - s) n)``, rounded half to even."""
    return round((1.0 - sparsity) * positions)


def expanded(bank: Tensor, permutation: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the weight of ``shape`` whose position ``permutation[j]`` holds entry ``j mod U`` of the bank of U entries."""
    positions, kernel = len(permutation), bank.shape[1:]
    entries = bank.repeat(-(-positions // len(bank)), *(1 for _ in kernel))[:positions]
    # scattering along a permutation: the backward pass is a gather and a sum, bitwise the same on every device and run
    return bank.new_empty(positions, *kernel).index_copy(0, permutation, entries).view(tuple(shape))


class Tied(nn.Module):
    """``bank -> weight``: position ``permutation[j]`` of the weight holds entry ``j mod U`` of the bank.

    The bank has shape ``[U]``, or ``[U, height, width]`` if whole kernels of a convolution are shared. Every entry is used
    ``floor(n/U)`` or ``ceil(n/U)`` times. The allocation is saved with the model and never changes.
    """

    permutation: Tensor

    def __init__(self, shape: Sequence[int], size: int, level: Level, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.kernel = self.shape[2:] if level == "kernel" else ()
        self.size = size
        self.register_buffer("permutation", torch.randperm(prod(self.shape) // prod(self.kernel), generator=generator))

    @property
    def positions(self) -> int:
        """Number of positions that share the bank: weights, or kernels."""
        return len(self.permutation)

    def allocation(self) -> Tensor:
        """Return the index of the bank entry at every position, integers ``[positions]``."""
        entries = torch.arange(self.positions, device=self.permutation.device) % self.size
        return torch.empty_like(entries).index_copy_(0, self.permutation, entries)

    def forward(self, bank: Tensor) -> Tensor:
        return expanded(bank, self.permutation, self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return a bank with the distribution of ``weight``: every entry takes the value at the first of its positions."""
        return weight.reshape(self.positions, *self.kernel)[self.permutation[: self.size]]


class TiedWeights(WeightsRule):
    """Every selected tensor of n weights has only ``round((1 - sparsity) n)`` free values (HashedNets without a sign hash).

    The banks start from the model's own initial values.

    Args:
        sparsity: ``1 - free values / weights`` in every tied tensor; a number, or a table from roles or layer names to numbers.
        level: ``kernel`` shares whole kernels of convolutions instead of single weights. Linear layers are the same either way.
        rescale_gradient: Divide the gradient of an entry by ``n / U``, the number of weights that use it.
        zero_first: Set the first entry of every linear layer's bank to zero at the start, as published. It remains trainable.
        layers: Roles or names of the layers that may be tied.
        dense: Roles or names of those among them that are not.
        penalty: Penalty on the free values, or with ``group_lasso`` on the expanded convolutions; None for no penalty.
    """

    cuda_graph: ClassVar[bool] = True

    def __init__(
        self,
        *,
        sparsity: Sparsity,
        level: Level = "element",
        rescale_gradient: bool = False,
        zero_first: bool = True,
        layers: Sequence[Text] = ("conv", "linear"),
        dense: Sequence[Text] = ("stem", "shortcut"),
        penalty: Penalty | None = None,
    ) -> None:
        self.sparsity = sparsity
        self.level: Level = level
        self.rescale_gradient = rescale_gradient
        self.zero_first = zero_first
        self.layer_selectors = tuple(layers)
        self.dense_selectors = tuple(dense)
        self.penalty = penalty if penalty is not None else Penalty(coefficient=0.0)

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        """Draw the allocations and register them. Raises ``ConfigError`` if a tensor would have no free value at all."""
        self.tied: list[Tied] = []
        self.banks: list[nn.Parameter] = []
        self.left_out = left_out(model)
        layers = select(model, self.layer_selectors, self.dense_selectors)
        require_plain_weights(model, layers, spectral_norm=False)
        for layer in layers:
            per_position = prod(layer.shape[2:]) if self.level == "kernel" else 1
            size = bank_size(value_for(layer, self.sparsity), weight_count(layer) // per_position)
            if size == 0:
                description = f"leaves no free value for the {weight_count(layer)} weights of {layer.name}"
                raise ConfigError([Problem(f"{KEY}.sparsity", description, "a smaller sparsity")])
            tied = Tied(layer.shape, size, self.level, context.generator).to(context.device)
            bank = register_on_weight(layer, tied)
            if self.zero_first and "linear" in layer.roles:
                with torch.no_grad():
                    bank[0] = 0.0
            self.tied.append(tied)
            self.banks.append(bank)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    def adjust_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        trained = trained_among(self.banks, list(parameters))
        if self.penalty.coefficient:
            if self.penalty.kind == "l1":
                self.penalty.add_gradients(trained)
            else:
                self._add_expanded_gradients({id(bank) for bank in trained})
        if self.rescale_gradient:
            present = {id(bank) for bank in trained}
            for tied, bank in zip(self.tied, self.banks):
                if id(bank) in present and bank.grad is not None:
                    bank.grad.mul_(tied.size / tied.positions)

    def _add_expanded_gradients(self, trained: set[int]) -> None:
        """Add the gradient of the group lasso of the expanded tensors, through the backward pass of the expansion."""
        for tied, bank in zip(self.tied, self.banks):
            if id(bank) not in trained or bank.grad is None:
                continue
            with torch.enable_grad():
                leaf = bank.detach().requires_grad_()
                if len(tied.shape) > 2:
                    weight = tied(leaf)
                    (gradient,) = torch.autograd.grad(weight, leaf, self.penalty.raw_gradient(weight.detach()))
                else:
                    gradient = self.penalty.raw_gradient(leaf.detach())
            bank.grad.add_(gradient, alpha=self.penalty.coefficient)

    def penalty_value(self) -> Tensor:
        """The penalty of the free values, or with ``group_lasso`` of the expanded convolutions (section 5.3)."""
        values = []
        for tied, bank in zip(self.tied, self.banks):
            grouped = self.penalty.kind == "group_lasso" and len(tied.shape) > 2
            values.append(self.penalty.raw(tied(bank.detach()) if grouped else bank.detach()))
        return torch.stack(values).sum() * self.penalty.coefficient

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        device = self.banks[0].device
        metrics = {"nonzero_parameters": torch.tensor(self.parameters, device=device)}
        if self.penalty.coefficient:
            metrics["penalty"] = self.penalty_value()
        return metrics

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return the expanded weights; see :meth:`.WeightsRule.computed_weights`. Those of another shape stay banks."""
        weights = {}
        for name, bank in saved.latents.items():
            permutation, shape = saved.stored[name]["0.permutation"], saved.layers[name].shape
            fits = len(permutation) * prod(bank.shape[1:]) == prod(shape)
            weights[name] = expanded(bank, permutation, shape) if fits else bank
        return weights

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of the node ``algorithm.weights``."""
        yield from sparsity_problems(f"{KEY}.sparsity", config.get("sparsity"))
