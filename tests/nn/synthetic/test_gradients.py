"""The interface between blocks that learn from predicted gradients."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altprop.nn.synthetic.gradients import BackwardInterface, current_context, predict, regression_gradient, synthesizer_context


class Constant(nn.Module):
    """Predicts the same gradient for every sample."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction = nn.Parameter(prediction)

    def forward(self, trigger: Tensor, context: Tensor | None) -> Tensor:
        return self.prediction * torch.ones_like(trigger)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), batch=st.integers(1, 5), features=st.integers(1, 4))
def test_regression_gradient_is_that_of_the_summed_square_over_the_batch(seed: int, batch: int, features: int) -> None:
    predicted, target = draw(batch, features, seed=seed).requires_grad_(), draw(batch, features, seed=seed + 100)
    ((predicted - target).square().sum() / batch).backward()
    assert torch.allclose(regression_gradient(predicted, target), predicted.grad)  # type: ignore[arg-type]


def test_the_prediction_trains_the_block_below_and_the_real_gradient_the_synthesizer() -> None:
    layer, prediction = nn.Linear(3, 4).double(), draw(1, 4)
    interface = BackwardInterface(Constant(prediction))
    inputs = draw(5, 3, seed=1).requires_grad_()
    hidden = layer(inputs)
    features = interface(hidden)
    assert torch.equal(features, hidden)
    expected = torch.autograd.grad(layer(inputs), layer.weight, prediction.expand(5, 4))[0]
    assert torch.allclose(layer.weight.grad, expected)
    assert torch.allclose(inputs.grad, prediction.expand(5, 4) @ layer.weight)
    before = layer.weight.grad.clone()
    real = draw(5, 4, seed=2)
    features.backward(real)
    assert torch.equal(layer.weight.grad, before), "the real gradient must not pass below"
    predicted = prediction.expand(5, 4)
    assert torch.allclose(interface.synthesizer.prediction.grad, (2 / 5 * (predicted - real)).sum(0, keepdim=True))


def test_interfaces_are_identities_in_evaluation_mode() -> None:
    trigger = draw(5, 4).requires_grad_()
    assert BackwardInterface(Constant(draw(1, 4))).eval()(trigger) is trigger
    assert trigger.grad is None


def test_contexts_can_be_nested() -> None:
    assert current_context() is None
    one, other = torch.zeros(1), torch.ones(1)
    with synthesizer_context(one):
        with synthesizer_context(other):
            assert current_context() is other
        assert current_context() is one
    assert current_context() is None


def test_a_synthesizer_learns_the_gradient_of_the_block_above() -> None:
    interface = BackwardInterface(Constant(torch.zeros(1, 3).double()))
    optimizer = torch.optim.SGD(interface.parameters(), lr=0.3)
    trigger, real = draw(8, 3).requires_grad_(), draw(1, 3, seed=1).expand(8, 3)
    for _ in range(40):
        optimizer.zero_grad()
        interface(trigger).backward(real)
        optimizer.step()
    assert torch.allclose(predict(interface.synthesizer, trigger), real, atol=1e-6)
