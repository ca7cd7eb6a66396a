"""Every algorithm and every weights rule by name. One line here gives a new one the whole suite of ``test_suite.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.decoupled_greedy import DecoupledGreedy
from altprop.algorithms.delayed_gradients import DelayedGradients
from altprop.algorithms.sequential_greedy import SequentialGreedy
from altprop.algorithms.synthetic_gradients import SyntheticGradients
from altprop.algorithms.target_propagation import TargetPropagation
from altprop.models.mlp import MLP
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.hard_units import SignStep
from altprop.nn.local_heads import mlp_head
from altprop.nn.weights.base import Dense, WeightsRule
from tests.algorithms.harness import Case

ADAM = partial(torch.optim.Adam, lr=3e-3)
SMALL_MLP = partial(MLP, hidden=(16, 12), units=nn.ReLU)
LINEAR_HEAD = partial(mlp_head, mlp_layers=0)

HARD_MLP = partial(MLP, hidden=(32, 24), units=SignStep)

ALGORITHMS: dict[str, Case] = {
    "backprop": Case(lambda weights: Backprop(weights=weights), SMALL_MLP),
    "target_propagation": Case(lambda weights: TargetPropagation(weights=weights, estimator=SoftHinge()), HARD_MLP),
    "decoupled_greedy": Case(lambda weights: DecoupledGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP),
    "sequential_greedy": Case(lambda weights: SequentialGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP, epochs=4),
    "synthetic_gradients": Case(
        lambda weights: SyntheticGradients(context=True, weights=weights), SMALL_MLP, ADAM, epochs=20, learns_to=90
    ),
    "delayed_gradients": Case(lambda weights: DelayedGradients(weights=weights), SMALL_MLP),
    "features_replay": Case(lambda weights: DelayedGradients(semantics="replay", weights=weights), SMALL_MLP),
}

WEIGHTS_RULES: dict[str, Callable[[], WeightsRule]] = {
    "dense": Dense,
}
