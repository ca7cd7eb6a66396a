"""Every rule, unit and mode against closed forms, in float64 (section 10 of the paper's specification)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.layer_losses import MARGIN_LOSSES
from altprop.nn.estimators.margin import MarginEstimator, TruncatedHinge
from altprop.nn.estimators.straight_through import SaturatedStraightThrough, SaturatedStraightThroughV2, StraightThrough
from altprop.nn.estimators.tanh import Sigmoid, SoftHinge
from altprop.nn.units.hard import BinaryStep, LeveledUnit, ReplacedDerivative, SignStep, Staircase, SummedStaircase
from altprop.nn.units.levels import Levels
from altprop.problems import ConfigError
from tests.nn.estimators.cases import LEVELS, RULES, SIGN, closed_form, combinations

SEEDS = st.integers(0, 2**32 - 1)


def backward(estimator: Estimator | None, levels: Levels, inputs: Tensor, upstream: Tensor) -> Tensor:
    leaf = inputs.clone().requires_grad_()
    ReplacedDerivative.apply(leaf, levels, estimator).backward(upstream)
    assert leaf.grad is not None
    return leaf.grad


def draw(seed: int, batch: int = 7, units: int = 11) -> tuple[Tensor, Tensor]:
    """Inputs in all zones, no closer than 1e-4 to a kink on a grid of quarters, and gradients that include zeros."""
    random = np.random.default_rng(seed)
    inputs = random.uniform(-3, 3, (batch, units))
    inputs = np.where(np.abs(inputs * 4 - np.round(inputs * 4)) < 4e-4, inputs + 1e-3, inputs)
    upstream = random.normal(size=(batch, units)) * (random.random((batch, units)) > 0.2)
    return torch.from_numpy(inputs), torch.from_numpy(upstream)


@pytest.mark.parametrize(("name", "unit", "scaled"), [case for case in combinations() if case[0] in SIGN])
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_published_backward_passes_are_reproduced(name: str, unit: str, scaled: bool, seed: int) -> None:
    inputs, upstream = draw(seed)
    gradient = backward(RULES[name](scaled=scaled), LEVELS[unit], inputs, upstream)
    expected = closed_form(name, LEVELS[unit], inputs.numpy(), upstream.numpy(), scaled)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "unit", "scaled"), combinations())
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_backward_pass_is_the_derivative_of_the_layer_loss(name: str, unit: str, scaled: bool, seed: int) -> None:
    inputs, upstream = draw(seed)
    levels, estimator = LEVELS[unit], RULES[name](scaled=scaled)
    leaf = inputs.clone().requires_grad_()
    targets = -upstream.sign()
    losses = estimator.layer_loss(leaf, torch.where(targets == 0, torch.ones_like(targets), targets), levels)
    (slope,) = torch.autograd.grad(losses.sum(), leaf)
    factor = upstream.abs() * levels.gradient_scale if scaled else targets.abs() / len(upstream)
    kinks = near_a_kink(name, inputs, levels)
    gradient = backward(estimator, levels, inputs, upstream)
    torch.testing.assert_close(gradient[~kinks], (factor * slope)[~kinks], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "unit", "low", "high"),
    [
        ("saturated_ste", "sign", -1.0, 1.0),
        ("saturated_ste", "binary", 0.0, 1.0),
        ("saturated_ste", "staircase3", 0.0, 1.0),
        ("saturated_ste_v2", "sign", -(3**0.5), 3**0.5),
        ("saturated_ste_v2", "binary", 0.0, 3**0.5),
    ],
)
def test_a_saturated_zone_ends_exactly_at_its_ends(name: str, unit: str, low: float, high: float, dtype: torch.dtype) -> None:
    ends = torch.tensor([low, high], dtype=dtype)
    outward = ends.new_tensor([-torch.inf, torch.inf])
    inputs = torch.cat((ends, torch.nextafter(ends, outward), torch.nextafter(ends, -outward)))
    gradient = backward(RULES[name](), LEVELS[unit], inputs, torch.full_like(inputs, 3.0))
    assert gradient.tolist() == [3, 3, 0, 0, 3, 3]


def near_a_kink(name: str, inputs: Tensor, levels: Levels) -> Tensor:
    """Whether ``inputs`` are at a kink off the grid that :func:`draw` avoids."""
    if name == "saturated_ste_v2":
        kinks = [sign * 3**0.5 + threshold for sign in (-1, 1) for threshold in levels.thresholds]
    elif name == "truncated_logistic":
        kink = np.log(np.expm1(2.0))
        kinks = [-kink, kink]
    else:
        return torch.zeros_like(inputs, dtype=torch.bool)
    return torch.stack([(inputs - kink).abs() < 1e-6 for kink in kinks]).any(dim=0)


@pytest.mark.parametrize(("name", "unit", "scaled"), combinations())
def test_saved_tensors_give_the_same_gradient_as_the_inputs(name: str, unit: str, scaled: bool) -> None:
    """The fused and packed backward passes against the plain formula ``g phi``, kinks included."""
    levels, estimator = LEVELS[unit], RULES[name](scaled=scaled)
    grid = torch.arange(-16, 17, dtype=torch.float64) / 4
    inputs = torch.stack([grid, grid])
    upstream = torch.stack([torch.full_like(grid, 0.7), torch.full_like(grid, -1.3)])
    plain = Estimator.gradient(estimator, upstream, inputs, levels)
    torch.testing.assert_close(backward(estimator, levels, inputs, upstream), plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "unit", "scaled"), combinations())
def test_a_zero_gradient_stays_zero(name: str, unit: str, scaled: bool) -> None:
    inputs, _ = draw(0)
    assert not backward(RULES[name](scaled=scaled), LEVELS[unit], inputs, torch.zeros_like(inputs)).any()


@pytest.mark.parametrize(
    ("unit", "smooth"),
    [
        ("sign", lambda z: z.clamp(-1, 1)),
        ("binary", lambda z: z.clamp(0, 1)),
        ("staircase3", lambda z: z.clamp(0, 1)),
        ("staircase5", lambda z: z.clamp(0, 1)),
        ("staircase3_centred", lambda z: z.clamp(-1, 1)),
    ],
)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_saturated_ste_is_backprop_through_the_saturated_unit(unit: str, smooth: Callable[[Tensor], Tensor], seed: int) -> None:
    assert_equals_backprop(SaturatedStraightThrough(), LEVELS[unit], smooth, seed)


@pytest.mark.parametrize(
    ("unit", "smooth"),
    [
        ("sign", torch.tanh),
        ("binary", torch.tanh),
        ("staircase3", lambda z: (torch.tanh(2 * z - 1) + 1) / 2),
        ("staircase5", lambda z: (torch.tanh(2 * z - 1) + 1) / 2),
        ("staircase3_centred", lambda z: torch.tanh(z)),
    ],
)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_soft_hinge_is_backprop_through_a_tanh(unit: str, smooth: Callable[[Tensor], Tensor], seed: int) -> None:
    assert_equals_backprop(SoftHinge(), LEVELS[unit], smooth, seed)


def assert_equals_backprop(estimator: Estimator, levels: Levels, smooth: Callable[[Tensor], Tensor], seed: int) -> None:
    inputs, upstream = draw(seed)
    leaf = inputs.clone().requires_grad_()
    smooth(leaf).backward(upstream)
    torch.testing.assert_close(backward(estimator, levels, inputs, upstream), leaf.grad, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, factor=st.floats(0.1, 100))
def test_scaled_mode_is_linear_and_unscaled_mode_ignores_the_size(seed: int, factor: float) -> None:
    inputs, upstream = draw(seed)
    levels = LEVELS["sign"]
    for estimator in (SoftHinge(), TruncatedHinge(), MarginEstimator(loss="adaline")):
        once = backward(estimator, levels, inputs, upstream)
        torch.testing.assert_close(backward(estimator, levels, inputs, factor * upstream), factor * once, rtol=1e-10, atol=1e-14)
        first = backward(estimator, levels, inputs[:3], upstream[:3])
        torch.testing.assert_close(first, once[:3], rtol=1e-12, atol=1e-15)
    unscaled = SoftHinge(scaled=False)
    once = backward(unscaled, levels, inputs, upstream)
    torch.testing.assert_close(backward(unscaled, levels, inputs, factor * upstream), once, rtol=1e-12, atol=1e-15)
    first = backward(unscaled, levels, inputs[:3], upstream[:3])
    torch.testing.assert_close(first, once[:3] * (len(inputs) / 3), rtol=1e-12, atol=1e-15)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_relations_between_rules(seed: int) -> None:
    inputs, upstream = draw(seed)
    levels = LEVELS["sign"]
    soft = backward(SoftHinge(), levels, inputs, upstream)
    torch.testing.assert_close(backward(Sigmoid(height=1, slope=2), levels, inputs, upstream), soft / 2)
    torch.testing.assert_close(backward(Sigmoid(height=2, slope=2), levels, inputs, upstream), soft)
    saturated = backward(SaturatedStraightThrough(), levels, inputs, upstream)
    assert torch.equal(backward(TruncatedHinge(), levels, inputs, upstream), saturated)
    assert torch.equal(backward(StraightThrough(), levels, inputs, upstream), upstream)
    for unit in ("summed5", "summed3_centred"):
        span = LEVELS[unit].high - LEVELS[unit].low
        torch.testing.assert_close(backward(StraightThrough(), LEVELS[unit], inputs, upstream), upstream * span)


def test_interval_ends() -> None:
    """The zones of saturated rules include their ends; the truncated hinge excludes ``m = -1``."""
    ends = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64)
    ones = torch.ones_like(ends)
    for upstream in (ones, -ones):
        assert torch.equal(backward(SaturatedStraightThrough(), LEVELS["sign"], ends, upstream), upstream)
        assert backward(SaturatedStraightThrough(), LEVELS["binary"], ends, upstream).abs().tolist() == [[0, 1, 1]]
        assert backward(SaturatedStraightThrough(), LEVELS["staircase5"], ends, upstream).abs().tolist() == [[0, 1, 1]]
    assert backward(TruncatedHinge(), LEVELS["sign"], ends, -ones).abs().tolist() == [[0, 1, 1]]  # target +1, m = z
    assert backward(TruncatedHinge(), LEVELS["sign"], ends, ones).abs().tolist() == [[1, 1, 0]]  # target -1, m = -z


@pytest.mark.parametrize("rises", [2, 3, 5, 100])
def test_the_truncated_hinge_of_a_staircase_counts_its_thresholds(rises: int) -> None:
    position = torch.linspace(-1.5, 2.5, 81, dtype=torch.float64)[None] + 1e-4
    levels = Levels("staircase", rises)
    within = sum((position - index / (rises - 1)).abs() < 1 for index in range(rises))
    for sign in (1.0, -1.0):
        gradient = backward(TruncatedHinge(), levels, position, torch.full_like(position, sign))
        torch.testing.assert_close(gradient, sign * within.double() / rises)


def test_surrogates_rise_as_much_as_their_units() -> None:
    grid = torch.linspace(-20, 21, 400_001, dtype=torch.float64)[None]
    ones = torch.ones_like(grid)
    for unit, rise in (("sign", 2.0), ("staircase5", 1.0), ("staircase3_centred", 2.0)):
        surrogate = backward(SoftHinge(), LEVELS[unit], grid, ones)
        assert torch.trapezoid(surrogate, grid).item() == pytest.approx(rise, abs=1e-6)


def test_legacy_sste_v2_scales_twice() -> None:
    inputs, upstream = draw(3)
    intended = backward(SaturatedStraightThroughV2(), LEVELS["sign"], inputs, upstream)
    legacy = backward(SaturatedStraightThroughV2(legacy=True), LEVELS["sign"], inputs, upstream)
    torch.testing.assert_close(legacy, len(inputs) * upstream.abs() * intended)


def test_options_of_the_rules() -> None:
    grid = torch.tensor([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]], dtype=torch.float64)
    upward = -torch.ones_like(grid)  # target +1
    wide = backward(TruncatedHinge(margin=2.0, truncation=3.0), LEVELS["sign"], grid, upward).abs()
    assert wide.tolist() == [[0, 0, 1, 1, 1, 0]]
    for estimator in (lambda: TruncatedHinge(margin=0), lambda: Sigmoid(height=0), lambda: Sigmoid(slope=-1)):
        with pytest.raises(ValueError, match="positive"):
            estimator()


def test_single_precision_is_within_the_stated_tolerance() -> None:
    grid = torch.linspace(-12, 12, 10_001)[None]
    ones = torch.ones_like(grid)
    exact = 1 - torch.tanh(grid.double()).square()
    assert (backward(SoftHinge(), LEVELS["sign"], grid, ones).double() - exact).abs().max() < 2e-6


@pytest.mark.parametrize("unit", [SignStep, BinaryStep, Staircase, SummedStaircase])
def test_a_unit_without_an_estimator_raises_when_its_gradient_is_computed(unit: Callable[[], LeveledUnit]) -> None:
    inputs = torch.randn(3, requires_grad=True)
    outputs = unit()(inputs)
    with pytest.raises(RuntimeError, match="algorithm/estimator=soft_hinge"):
        outputs.sum().backward()


@pytest.mark.parametrize(
    ("rule", "units", "largest"),
    [("saturated_ste", "sign", 1), ("saturated_ste", "summed5", 1), ("ste", "sign", 0), ("soft_hinge", "sign", 4)],
)
def test_only_what_the_backward_pass_needs_is_saved(rule: str, units: str, largest: int) -> None:
    """Bytes per unit: a mask for saturated rules, the inputs (shared, not copied) for the soft hinge, nothing for STE."""
    inputs = torch.randn(10, 10, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        ReplacedDerivative.apply(inputs, LEVELS[units], RULES[rule]())
    assert sum(tensor.element_size() for tensor in saved) == largest
    assert all(tensor.numel() == inputs.numel() for tensor in saved)
    if rule == "soft_hinge":
        assert saved[0].data_ptr() == inputs.data_ptr()


@pytest.mark.parametrize(("name", "unit", "scaled"), combinations(scaled=True))
def test_active_units_are_those_near_the_middle(name: str, unit: str, scaled: bool) -> None:
    levels = LEVELS[unit]
    center = 0.0 if levels.rises == 1 else (levels.low + levels.high) / 2
    active = RULES[name]().active(torch.tensor([center, center + 1e-3], dtype=torch.float64), levels)
    assert active.dtype == torch.bool
    assert active.all()
    if name in ("saturated_ste", "soft_hinge", "truncated_hinge", "ramp"):
        assert not RULES[name]().active(torch.tensor([-4.0, 5.0], dtype=torch.float64), levels).any()


def test_unknown_and_impossible_rules_raise_one_line() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.estimator\.loss: hingee; one of .*try: algorithm\.estimator\.loss=hinge"):
        MarginEstimator(loss="hingee")
    with pytest.raises(ConfigError, match=r"algorithm\.estimator\.scaled: false; .* scaled mode only"):
        StraightThrough(scaled=False)


def test_every_margin_loss_is_tested() -> None:
    rules = [make() for make in RULES.values()]
    assert {rule.loss for rule in rules if isinstance(rule, MarginEstimator)} == set(MARGIN_LOSSES.values())
