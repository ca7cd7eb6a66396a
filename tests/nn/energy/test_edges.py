"""Edges of energy-based networks (adjoints, ties, layouts) and the activations between them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altprop.nn.energy.activations import ACTIVATIONS
from altprop.nn.energy.edges import (
    Edge,
    bias_gradient,
    convolve,
    convolved,
    down,
    flatten,
    pool,
    to_layer_layout,
    to_working_layout,
    unflatten,
    unpool,
    up,
    weight_gradient,
)


@st.composite
def edges(draw: st.DrawFn) -> Edge:
    """Convolutions with any kernel, stride, padding and pooling, and linear edges from flat or spatial states."""
    if draw(st.booleans()):
        below = draw(st.sampled_from([(5,), (2, 3, 4)]))
        return Edge(below, (draw(st.integers(1, 4)),))
    kernel, stride, padding = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    pooling = draw(st.sampled_from(["max", "average", "none"]))
    sides = [draw(st.integers(7, 11)) for _ in range(2)]
    size = [convolved(side, kernel, stride, padding) for side in sides]
    size = [side // 2 for side in size] if pooling != "none" else size
    return Edge((2, *sides), (3, *size), kernel, stride, padding, pooling)  # type: ignore[arg-type]


def parameters_of(edge: Edge, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if edge.is_convolution:
        shape: tuple[int, ...] = (edge.above[0], edge.below[0], edge.kernel, edge.kernel)
    else:
        shape = (edge.above[0], torch.Size(edge.below).numel())
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return weight, torch.randn(edge.above[0], generator=generator, dtype=torch.float64)


@given(edge=edges(), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_down_and_gradients_are_derivatives_of_the_bilinear_form(edge: Edge, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = parameters_of(edge, generator)
    below = torch.randn(3, *edge.below, generator=generator, dtype=torch.float64).requires_grad_()
    above = torch.randn(3, *edge.above, generator=generator, dtype=torch.float64)
    weight.requires_grad_(), bias.requires_grad_()
    drive, routing = up(edge, below, weight, bias)
    assert drive.shape == above.shape
    by_below, by_weight, by_bias = torch.autograd.grad((drive * above).sum(), (below, weight, bias))
    with torch.no_grad():
        assert torch.allclose(down(edge, above, weight, routing), by_below, atol=1e-10)
        assert torch.allclose(weight_gradient(edge, below, unpool(edge, above, routing)), by_weight, atol=1e-10)
        assert torch.allclose(bias_gradient(edge, above), by_bias, atol=1e-10)


@given(edge=edges(), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_up_and_down_are_adjoint(edge: Edge, seed: int) -> None:
    """Check 4 of section 10: ``<up(s) without bias, z> = <s, down(z)>``."""
    generator = torch.Generator().manual_seed(seed)
    weight, _ = parameters_of(edge, generator)
    below = torch.randn(2, *edge.below, generator=generator, dtype=torch.float64)
    above = torch.randn(2, *edge.above, generator=generator, dtype=torch.float64)
    drive, routing = up(edge, below, weight, None)
    assert torch.allclose((drive * above).sum(), (below * down(edge, above, weight, routing)).sum(), atol=1e-9)


def test_ties_go_to_the_first_value_in_row_major_order() -> None:
    """Trap 3: ties are common because units saturate."""
    edge = Edge((1, 4, 4), (1, 2, 2), 1, pool="max")
    _, routing = pool(edge, torch.ones(1, 1, 4, 4))
    spread = unpool(edge, torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), routing)
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 1.0, 2.0, 3.0, 4.0
    assert torch.equal(spread[0, 0], expected)


def test_unpooling_works_in_deterministic_mode() -> None:
    edge = Edge((1, 4, 4), (1, 2, 2), 1, pool="max")
    _, routing = pool(edge, torch.rand(1, 1, 4, 4))
    plain = unpool(edge, torch.rand(1, 1, 2, 2), routing)
    torch.use_deterministic_algorithms(True)
    try:
        assert unpool(edge, torch.rand(1, 1, 2, 2), routing).shape == plain.shape
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@given(channels=st.integers(1, 4), height=st.integers(1, 4), width=st.integers(1, 4))
def test_layouts_are_inverse_and_preserve_the_linear_map(channels: int, height: int, width: int) -> None:
    shape = (channels, height, width)
    edge = Edge(shape, (3,))
    state = torch.randn(2, *shape)
    weight = torch.randn(3, channels * height * width)
    assert torch.equal(unflatten(flatten(state), shape), state)
    assert torch.equal(to_layer_layout(edge, to_working_layout(edge, weight)), weight)
    expected = functional.linear(state.flatten(1), weight)
    assert torch.allclose(convolve(edge, state, to_working_layout(edge, weight), None), expected, atol=1e-5)


def test_a_low_precision_weight_computes_in_its_type_and_returns_that_of_the_states() -> None:
    edge = Edge((4, 6, 6), (5, 3, 3), 3, padding=1, pool="max")
    weight, bias, below = torch.randn(5, 4, 3, 3), torch.randn(5), torch.rand(2, 4, 6, 6)
    exact, routing = up(edge, below, weight, bias)
    drive, _ = up(edge, below, weight.bfloat16(), bias)
    assert drive.dtype == torch.float32
    assert 0 < float((drive - exact).abs().max()) < 0.1
    assert down(edge, exact, weight.bfloat16(), routing).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "potential", "value"),
    [
        ("half_slope_hard_sigmoid", 1.0, 0.5),
        ("hard_sigmoid", 0.25, 0.25),
        ("shifted_sigmoid", 0.5, 0.5),
        ("centered_hard_sigmoid", 1.0, 0.5),
        ("tanh", 0.0, 0.0),
        ("sigmoid", 0.0, 0.5),
    ],
)
def test_values_of_the_activations(name: str, potential: float, value: float) -> None:
    """Check 2 of section 10."""
    assert float(ACTIVATIONS[name](torch.tensor(potential))) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("shifted_sigmoid", 1.0),
        ("half_slope_hard_sigmoid", 0.5),
        ("hard_sigmoid", 1.0),
        ("sigmoid", 0.235004),
        ("tanh", 0.786448),
    ],
)
def test_slopes_at_a_half(name: str, slope: float) -> None:
    assert float(ACTIVATIONS[name].slope(torch.tensor(0.5))) == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_folded_form_equals_the_activation(name: str) -> None:
    activation = ACTIVATIONS[name]
    potential = torch.linspace(-3, 3, 101, dtype=torch.float64)
    scaled = (potential - activation.center) * activation.scale
    folded = activation.squasher()(scaled, scaled)
    assert torch.allclose(folded, activation(potential), atol=1e-14)
