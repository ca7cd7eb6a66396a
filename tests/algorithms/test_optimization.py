"""What an optimizer step does with gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from altprop.algorithms.backprop import Backprop
from tests.algorithms.harness import Case, Training
from tests.algorithms.registry import SMALL_MLP


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_may_enter_the_backward_pass_at_several_tensors(precision: str) -> None:
    case = Case(lambda weights: Backprop(weights=weights), partial(SMALL_MLP, batch_norm=False))
    algorithm = Training(case, precision=precision).algorithm
    optimization = algorithm.optimization  # type: ignore[attr-defined]
    inputs = torch.rand(16, 1, 8, 8)
    hidden = algorithm.model.blocks[0](inputs)  # type: ignore[union-attr, index]
    scores = algorithm.model(inputs)
    one, other = torch.randn(hidden.shape), torch.randn(scores.shape)
    parameters = list(algorithm.model.parameters())
    expected = torch.autograd.grad([hidden, scores], parameters, [one, other], retain_graph=True)
    optimization.zero_grad()
    optimization.backward_from([hidden, scores], [one, other])
    if precision == "fp16":
        scale = optimization.scaler.get_scale()
        assert scale > 1
        for parameter in parameters:
            parameter.grad /= scale
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-6)
