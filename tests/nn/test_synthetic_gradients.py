"""The interfaces of decoupled parts, alone and over the steps of a recurrent net."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altprop.nn.synthetic.gradients import (
    BackwardInterface,
    BidirectionalInterface,
    ForwardInterface,
    backward,
    current_context,
    defer_backward,
    receive,
    regression_gradient,
    send,
    synthesizer_context,
)
from altprop.nn.synthetic.synthesizers import BasicSynthesizer, ConvSynthesizer


class Oracle(nn.Module):
    """Predicts what it has been told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, trigger: Tensor, context: Tensor | None) -> Tensor:
        return self.answer * torch.ones_like(trigger)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), batch=st.integers(1, 5), features=st.integers(1, 4))
def test_regression_gradient_is_that_of_the_summed_square_over_the_batch(seed: int, batch: int, features: int) -> None:
    predicted, target = draw(batch, features, seed=seed).requires_grad_(), draw(batch, features, seed=seed + 100)
    ((predicted - target).square().sum() / batch).backward()
    assert torch.allclose(regression_gradient(predicted, target), predicted.grad)  # type: ignore[arg-type]


def test_send_uses_the_mean_over_all_elements() -> None:
    synthesizer, message, trigger = Oracle(draw(1, 3)), draw(4, 3, seed=1), draw(4, 3, seed=2)
    send(synthesizer, message, trigger)
    expected = 2 * (synthesizer.answer - message).sum(0, keepdim=True) / 12
    assert torch.allclose(synthesizer.answer.grad, expected.detach())  # type: ignore[arg-type]


def test_backward_interface_trains_below_with_the_prediction_and_the_synthesizer_with_the_truth() -> None:
    layer, answer = nn.Linear(3, 4).double(), draw(1, 4)
    interface = BackwardInterface(Oracle(answer))
    inputs = draw(5, 3, seed=1).requires_grad_()
    hidden = layer(inputs)
    handed_on = interface(hidden)
    assert torch.equal(handed_on, hidden)
    expected = torch.autograd.grad(layer(inputs), layer.weight, answer.expand(5, 4))[0]
    assert torch.allclose(layer.weight.grad, expected)
    assert torch.allclose(inputs.grad, answer.expand(5, 4) @ layer.weight)
    before = layer.weight.grad.clone()
    true = draw(5, 4, seed=2)
    handed_on.backward(true)
    assert torch.equal(layer.weight.grad, before), "the true gradient must not pass below"
    predicted = answer.expand(5, 4)
    assert torch.allclose(interface.synthesizer.answer.grad, (2 / 5 * (predicted - true)).sum(0, keepdim=True))


def test_make_trigger_passes_the_true_gradient_on() -> None:
    interface = BackwardInterface(Oracle(draw(1, 4)))
    tensor = draw(5, 4, seed=1).requires_grad_()
    true = draw(5, 4, seed=2)
    (interface.make_trigger(tensor * 3.0) * true).sum().backward()
    assert torch.allclose(tensor.grad, 3.0 * true)  # type: ignore[arg-type]
    assert interface.synthesizer.answer.grad is not None


def test_factor_scales_the_injected_gradient() -> None:
    interface, tensor = BackwardInterface(Oracle(draw(1, 4))), draw(5, 4, seed=1).requires_grad_()
    interface.backward(tensor, factor=0.25)
    assert torch.allclose(tensor.grad, 0.25 * draw(1, 4).expand(5, 4))  # type: ignore[arg-type]


def test_interfaces_are_identities_in_evaluation() -> None:
    message, trigger = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    for interface in (ForwardInterface(Oracle(draw(1, 4))), BidirectionalInterface(Oracle(draw(1, 4)), Oracle(draw(1, 4)))):
        assert interface.eval()(message, trigger) is message
    both = BackwardInterface(Oracle(draw(1, 4))).eval()
    assert both(message) is message
    assert both.make_trigger(message) is message
    both.backward(message)
    assert message.grad is None


def test_forward_interface_learns_the_message_and_hands_on_the_prediction() -> None:
    torch.manual_seed(0)
    interface = ForwardInterface(BasicSynthesizer(3, trigger_dim=2)).double()
    optimizer = torch.optim.SGD(interface.parameters(), lr=0.5)
    trigger = draw(32, 2)
    message = trigger @ draw(2, 3, seed=1)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        handed_on = interface(message, trigger)
        assert not handed_on.requires_grad
        errors.append(float((handed_on - message).square().mean()))
        optimizer.step()
    assert errors[-1] < 1e-3 * errors[0]


def test_bidirectional_interface_decouples_both_sides() -> None:
    gradient, activation = draw(1, 3), draw(1, 3, seed=1)
    interface = BidirectionalInterface(Oracle(activation), Oracle(gradient))
    message = draw(4, 3, seed=2).requires_grad_()
    received = interface(message, draw(4, 3, seed=3))
    assert torch.allclose(received, activation.expand(4, 3))
    assert torch.allclose(message.grad, gradient.expand(4, 3))  # type: ignore[arg-type]
    true = draw(4, 3, seed=4)
    received.backward(true)
    assert torch.allclose(message.grad, gradient.expand(4, 3))  # type: ignore[arg-type]
    taught = interface.backward_interface.synthesizer.answer.grad
    assert torch.allclose(taught, (2 / 4 * (gradient - true)).sum(0, keepdim=True))
    assert interface.forward_interface.synthesizer.answer.grad is not None


def test_contexts_stack() -> None:
    assert current_context() is None
    one, other = torch.zeros(1), torch.ones(1)
    with synthesizer_context(one):
        with synthesizer_context(other):
            assert current_context() is other
        assert current_context() is one
    assert current_context() is None


def test_deferral_cannot_be_nested_and_ends_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="nested"), defer_backward(), defer_backward():
        pass
    tensor = torch.ones(2, requires_grad=True)
    backward(tensor.sum())
    assert tensor.grad is not None


def test_deferred_gradients_equal_immediate_ones() -> None:
    """Two roots on one graph: at once this would free the graph after the first."""
    weight = draw(3, 3).requires_grad_()
    hidden = (draw(2, 3, seed=1) @ weight).tanh()
    with defer_backward():
        backward(hidden, torch.ones_like(hidden))
        backward(hidden.square().sum())
        assert weight.grad is None
    expected = torch.autograd.grad((draw(2, 3, seed=1) @ weight).tanh(), weight, 1 + 2 * hidden.detach())[0]
    assert torch.allclose(weight.grad, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_hidden", [0, 1, 2])
@pytest.mark.parametrize("context", [None, 5])
def test_basic_synthesizer_starts_with_its_last_bias(n_hidden: int, context: int | None) -> None:
    synthesizer = BasicSynthesizer(4, n_hidden, hidden_dim=7, trigger_dim=3, context_dim=context)
    with synthesizer_context(None if context is None else torch.randn(6, context)):
        predicted = receive(synthesizer, torch.randn(6, 3))
    assert predicted.shape == (6, 4)
    assert torch.equal(predicted, predicted[:1].expand(6, 4))
    assert predicted.any()
    assert [tuple(layer.weight.shape) for layer in synthesizer.layers] == [(7, 7)] * (n_hidden - 1) + [(4, 7)] * (n_hidden > 0)


def test_context_is_required_where_it_was_announced() -> None:
    with pytest.raises(ValueError, match="has not been given one"):
        BasicSynthesizer(4, context_dim=2)(torch.randn(3, 4))


def test_conv_synthesizer_has_the_published_parameters() -> None:
    synthesizer = ConvSynthesizer(128, 10)
    assert sum(parameter.numel() for parameter in synthesizer.parameters()) == 1_231_104
    bias = synthesizer.convolutions[-1].bias
    assert 0 < float(bias.detach().abs().max()) <= 1 / 3200**0.5  # type: ignore[union-attr]
    maps = receive(synthesizer, torch.randn(2, 128, 3, 3))
    assert torch.equal(maps, bias.detach()[None, :, None, None].expand(2, 128, 3, 3))  # type: ignore[union-attr]
    assert not receive(ConvSynthesizer(4, 3, zero_bias=True), torch.randn(2, 4, 3, 3)).any()


def test_conv_synthesizer_adds_the_context_at_every_position() -> None:
    torch.manual_seed(0)
    synthesizer = ConvSynthesizer(4, 3).double()
    nn.init.normal_(synthesizer.convolutions[-1].weight)  # type: ignore[arg-type]
    trigger, context = draw(5, 4, 3, 3), nn.functional.one_hot(torch.arange(5) % 3, 3).double()
    first = synthesizer.convolutions[0](trigger) + synthesizer.from_context(context)[:, :, None, None]
    assert torch.allclose(synthesizer(trigger, context), synthesizer.convolutions[1:](first))
    assert not torch.allclose(synthesizer(trigger, context), synthesizer(trigger))


# -- a recurrent net -------------------------------------------------------------------------------------------------------------


class Recurrent:
    """Echo task in chunks of ``length`` steps; gradients beyond a chunk come from ``interface``, or from nowhere."""

    def __init__(self, interface: BackwardInterface | None) -> None:
        torch.manual_seed(0)
        self.cell = nn.RNNCell(2, 6).double()
        self.readout = nn.Linear(6, 1).double()
        self.interface = interface

    def chunk(self, state: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """One truncated pass; gradients are accumulated, the last state is returned detached."""
        with defer_backward():
            hidden = state if self.interface is None else self.interface.make_trigger(state)
            loss = torch.zeros((), dtype=torch.float64)
            for step in range(inputs.shape[1]):
                hidden = self.cell(inputs[:, step], hidden)
                loss = loss + (self.readout(hidden) - targets[:, step]).square().mean()
            backward(loss)
            if self.interface is not None:
                self.interface.backward(hidden)
        return hidden.detach()

    def gradients(self) -> list[Tensor]:
        return [parameter.grad.clone() for parameter in [*self.cell.parameters(), *self.readout.parameters()]]


def test_perfect_synthesizer_makes_truncated_training_exact() -> None:
    """Two chunks with the true gradient injected between them give the gradients of the whole sequence."""
    inputs, targets, start = draw(3, 6, 2), draw(3, 6, 1, seed=1), torch.zeros(3, 6, dtype=torch.float64)
    whole = Recurrent(None)
    whole.chunk(start, inputs, targets)

    probe = Recurrent(None)
    with torch.no_grad():
        middle = start
        for step in range(3):
            middle = probe.cell(inputs[:, step], middle)
    middle = middle.clone().requires_grad_()
    probe.chunk(middle, inputs[:, 3:], targets[:, 3:])
    interface = BackwardInterface(Oracle(middle.grad))  # type: ignore[arg-type]

    parts = Recurrent(interface)
    state = parts.chunk(start, inputs[:, :3], targets[:, :3])
    interface.synthesizer.answer.grad = None
    parts.interface = interface
    with defer_backward():
        hidden = interface.make_trigger(state)
        loss = torch.zeros((), dtype=torch.float64)
        for step in range(3, 6):
            hidden = parts.cell(inputs[:, step], hidden)
            loss = loss + (parts.readout(hidden) - targets[:, step]).square().mean()
        backward(loss)
    for mine, theirs in zip(parts.gradients(), whole.gradients(), strict=True):
        assert torch.allclose(mine, theirs)
    assert interface.synthesizer.answer.grad.abs().max() < 1e-12


def test_synthesizer_learns_the_gradient_of_later_steps() -> None:
    torch.manual_seed(1)
    interface = BackwardInterface(BasicSynthesizer(6, n_hidden=1, hidden_dim=16)).double()
    net = Recurrent(interface)
    optimizer = torch.optim.Adam(interface.parameters(), lr=1e-2)
    inputs, targets = draw(8, 4, 2), draw(8, 4, 1, seed=1)
    errors: list[Any] = []
    for _ in range(150):
        optimizer.zero_grad()
        state = draw(8, 6, seed=2).requires_grad_()
        # the state's own gradient is the truth that arrives at the trigger; the prediction at the end is left out
        with defer_backward():
            hidden = interface.make_trigger(state)
            loss = torch.zeros((), dtype=torch.float64)
            for step in range(4):
                hidden = net.cell(inputs[:, step], hidden)
                loss = loss + (net.readout(hidden) - targets[:, step]).square().mean()
            backward(loss)
        errors.append(float((receive(interface.synthesizer, state) - state.grad).square().sum()))  # type: ignore[operator]
        optimizer.step()
    assert errors[-1] < 0.05 * errors[0]
