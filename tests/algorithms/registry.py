"""Every algorithm and every weights rule by name. One line here gives a new one the whole suite of ``test_suite.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.models.mlp import MLP
from altprop.nn.weights.base import Dense, WeightsRule
from tests.algorithms.harness import Case

SMALL_MLP = partial(MLP, hidden=(16, 12), units=nn.ReLU)

ALGORITHMS: dict[str, Case] = {
    "backprop": Case(lambda weights: Backprop(weights=weights), SMALL_MLP),
}

WEIGHTS_RULES: dict[str, Callable[[], WeightsRule]] = {
    "dense": Dense,
}
