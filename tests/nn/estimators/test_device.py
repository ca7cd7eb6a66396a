"""Every rule, unit and mode on the meta device: neither pass waits for the device or mixes in a CPU tensor."""

from __future__ import annotations

import pytest
import torch

from altprop.nn.units.hard import ReplacedDerivative
from tests.device import META, no_transfers
from tests.nn.estimators.cases import LEVELS, RULES


@pytest.mark.parametrize("rule", RULES)
def test_both_passes_stay_on_the_device(rule: str) -> None:
    for levels in LEVELS.values():
        for scaled in (True, False):
            if levels.kind not in RULES[rule]().fits or not (scaled or RULES[rule]().has_unscaled):
                continue
            estimator = RULES[rule](scaled=scaled)
            inputs = torch.empty(4, 3, device=META, requires_grad=True)
            with no_transfers():
                outputs = ReplacedDerivative.apply(inputs, levels, estimator)
                outputs.backward(torch.empty_like(outputs))
                estimator.active(inputs, levels)
            assert inputs.grad is not None
