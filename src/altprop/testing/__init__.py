"""Test suites for algorithms and weights rules, for altprop's own and for those of other packages. They need pytest.

A package tests its own algorithm or weights rule by inheriting a suite::

    from altprop.testing import AlgorithmSuite, Case

    class TestMine(AlgorithmSuite):
        cases = {"mine": Case(lambda weights: Mine(weights=weights))}

:class:`Training` sets up an algorithm on the suites' tiny problem, for tests of one's own.
"""

import pytest

pytest.register_assert_rewrite("altprop.testing.algorithms", "altprop.testing.problem", "altprop.testing.rules")

from altprop.testing.algorithms import AlgorithmSuite  # noqa: E402 - pytest must know the modules before they are imported
from altprop.testing.examples import ALGORITHMS, WEIGHTS_RULES  # noqa: E402
from altprop.testing.problem import (  # noqa: E402
    BATCH,
    INPUT_SHAPE,
    NUM_CLASSES,
    SAMPLES,
    SGD,
    SMALL_MLP,
    STEPS_PER_EPOCH,
    Case,
    TinySplit,
    Training,
    assert_equal,
)
from altprop.testing.rules import WeightsRuleSuite  # noqa: E402

__all__ = [
    "ALGORITHMS",
    "BATCH",
    "INPUT_SHAPE",
    "NUM_CLASSES",
    "SAMPLES",
    "SGD",
    "SMALL_MLP",
    "STEPS_PER_EPOCH",
    "WEIGHTS_RULES",
    "AlgorithmSuite",
    "Case",
    "TinySplit",
    "Training",
    "WeightsRuleSuite",
    "assert_equal",
]
