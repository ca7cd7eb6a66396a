"""The suites of :mod:`altprop.testing` on every algorithm and weights rule of altprop."""

from __future__ import annotations

from pathlib import Path

import pytest

from altprop.testing import AlgorithmSuite, WeightsRuleSuite
from tests.algorithms.registry import ALGORITHMS, WEIGHTS_RULES


class TestAlgorithms(AlgorithmSuite):
    cases = ALGORITHMS
    rules = WEIGHTS_RULES
    curves = Path(__file__).parent / "curves"
    test_compiled_step_equals_the_plain_step = pytest.mark.slow(AlgorithmSuite.test_compiled_step_equals_the_plain_step)


class TestWeightsRules(WeightsRuleSuite):
    rules = WEIGHTS_RULES
    algorithms = {"backprop": ALGORITHMS["backprop"]}  # noqa: RUF012 - a mapping that nothing changes
    test_trains_and_resumes_bit_exactly = None  # the other suite combines every algorithm with every rule
