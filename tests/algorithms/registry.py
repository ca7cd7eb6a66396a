"""Every algorithm and every weights rule by name. One line here gives a new one the whole suite of ``test_suite.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.decoupled_greedy import DecoupledGreedy
from altprop.algorithms.sequential_greedy import SequentialGreedy
from altprop.models.mlp import MLP
from altprop.nn.local_heads import mlp_head
from altprop.nn.weights.base import Dense, WeightsRule
from tests.algorithms.harness import Case

SMALL_MLP = partial(MLP, hidden=(16, 12), units=nn.ReLU)
LINEAR_HEAD = partial(mlp_head, mlp_layers=0)

ALGORITHMS: dict[str, Case] = {
    "backprop": Case(lambda weights: Backprop(weights=weights), SMALL_MLP),
    "decoupled_greedy": Case(lambda weights: DecoupledGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP),
    "sequential_greedy": Case(lambda weights: SequentialGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP, epochs=4),
}

WEIGHTS_RULES: dict[str, Callable[[], WeightsRule]] = {
    "dense": Dense,
}
