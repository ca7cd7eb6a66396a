"""Algorithms and weights rules of altprop that the suites combine with the one under test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.models.energy import EnergyMLP
from altprop.models.mlp import MLP
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.heads.local import mlp_head
from altprop.nn.units.hard import SignStep
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.binary.iterative import IterativeBinary
from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.grow import GradientGrow, RandomGrow
from altprop.nn.weights.sparse.n_of_m import NOfM
from altprop.nn.weights.sparse.prune import FractionPrune, Prune, SignChangePrune, ThresholdPrune
from altprop.nn.weights.sparse.pruning import IterativePruning
from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors, WithinTensor
from altprop.nn.weights.sparse.static import StaticSparse
from altprop.nn.weights.sparse.structured import StructuredRigL
from altprop.nn.weights.tied import TiedWeights
from altprop.testing.problem import SMALL_MLP, Case

ADAM = partial(torch.optim.Adam, lr=3e-3)
LINEAR_HEAD = partial(mlp_head, mlp_layers=0)
ENERGY_MLP = partial(EnergyMLP, hidden=(32,))
HARD_MLP = partial(MLP, hidden=(32, 24), units=SignStep)

ALGORITHMS: dict[str, Case] = {
    "backprop": Case(lambda weights: Backprop(weights=weights), SMALL_MLP),
    "target_propagation": Case(lambda weights: TargetPropagation(weights=weights, estimator=SoftHinge()), HARD_MLP),
    "decoupled_greedy": Case(lambda weights: DecoupledGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP),
    "equilibrium_propagation": Case(
        lambda weights: EquilibriumPropagation(beta=0.2, nudging="symmetric", nudge_steps=8, weights=weights), ENERGY_MLP, ADAM
    ),
}
"""One algorithm of each kind: end-to-end, hard units, local losses, an energy-based network."""


def sparse(prune: Callable[[], Prune], redistribute: type, grow: type, **options: Any) -> DynamicSparse:
    """Return a dynamic sparse rule. Its parts have state, so every rule gets its own."""
    settings: dict[str, Any] = {"sparsity": 0.5, "period": {0: 5}, **options}
    return DynamicSparse(prune=prune(), redistribute=redistribute(), grow=grow(), **settings)


WEIGHTS_RULES: dict[str, Callable[[], WeightsRule]] = {
    "dense": Dense,
    "binary": partial(Binary, scale="channel", clip=1.0),
    "static_sparse": partial(StaticSparse, sparsity=0.5),
    "dynamic_sparse": partial(sparse, lambda: ThresholdPrune(target=30), ProportionalToSurvivors, RandomGrow),
    "set": partial(sparse, lambda: FractionPrune(fraction=0.1), WithinTensor, RandomGrow),
    "rigl": partial(
        sparse, lambda: FractionPrune(fraction=0.1, decay="cosine"), WithinTensor, GradientGrow, optimizer_state="reset"
    ),
    "deep_r": partial(sparse, SignChangePrune, WithinTensor, RandomGrow, period={0: 1}, penalty=Penalty(coefficient=1e-5)),
    "n_of_m": partial(NOfM, dense=()),
    "structured_rigl": partial(StructuredRigL, sparsity=0.5, period={0: 5}),
    "tied": partial(TiedWeights, sparsity=0.5),
    "iterative_pruning": partial(IterativePruning, sparsity=0.5, iterations=2),
    "iterative_binary": partial(IterativeBinary, epochs_per_layer=1, epoch_end="legacy"),
}
"""Every weights rule of altprop. A line here is enough to test a new one with every algorithm."""
