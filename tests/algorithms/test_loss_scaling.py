"""The published rule of dynamic loss scaling, and static scaling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.algorithms.loss_scaling import LossScaling


def published_scales(overflows: list[bool], interval: int, initial: float) -> list[float]:
    """Specification, section 2.7: halved at an overflow, at least 1, and doubled every ``interval`` iterations after the last."""
    scale, last, scales = initial, -1, []
    for iteration, overflow in enumerate(overflows):
        if overflow:
            scale, last = max(scale / 2, 1.0), iteration
        elif (iteration - last) % interval == 0:
            scale *= 2
        scales.append(scale)
    return scales


class Loss:
    """One parameter whose gradient can be made to overflow."""

    def __init__(self, rule: LossScaling) -> None:
        self.parameter = torch.nn.Parameter(torch.ones(2))
        self.optimizer = torch.optim.SGD([self.parameter], lr=1e-3)
        self.scaler = rule.build("cpu")

    def step(self, overflow: bool) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(self.parameter.sum() * (float("inf") if overflow else 1.0)).backward()
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@settings(max_examples=40, deadline=None)
@given(overflows=st.lists(st.booleans(), max_size=40), interval=st.integers(1, 6), exponent=st.integers(0, 8))
def test_torch_scaler_follows_the_published_rule(overflows: list[bool], interval: int, exponent: int) -> None:
    loss = Loss(LossScaling(init_scale=2.0**exponent, growth_interval=interval))
    scales = []
    for overflow in overflows:
        loss.step(overflow)
        scales.append(loss.scaler.get_scale())
    assert scales == published_scales(overflows, interval, 2.0**exponent)


def test_defaults_are_the_published_numbers() -> None:
    loss = Loss(LossScaling())
    for count in range(40):
        loss.step(overflow=True)
        assert loss.scaler.get_scale() == max(2.0 ** (31 - count), 1.0)
    for _ in range(999):
        loss.step(overflow=False)
    assert loss.scaler.get_scale() == 1.0
    loss.step(overflow=False)
    assert loss.scaler.get_scale() == 2.0


def test_overflow_does_not_change_parameters() -> None:
    loss = Loss(LossScaling())
    loss.step(overflow=True)
    assert torch.equal(loss.parameter, torch.ones(2))


@given(exponent=st.integers(0, 12))
def test_static_scale_changes_nothing_but_rounding(exponent: int) -> None:
    plain, scaled = Loss(LossScaling(init_scale=1.0, dynamic=False)), Loss(LossScaling(init_scale=2.0**exponent, dynamic=False))
    for _ in range(3):
        plain.step(overflow=False)
        scaled.step(overflow=False)
    assert torch.equal(plain.parameter, scaled.parameter)
    assert scaled.scaler.get_scale() == 2.0**exponent


def test_static_scale_never_tests_for_overflow() -> None:
    loss = Loss(LossScaling(init_scale=128.0, dynamic=False))
    loss.step(overflow=True)
    assert not torch.isfinite(loss.parameter).any()


def test_scale_is_part_of_the_state() -> None:
    loss = Loss(LossScaling(init_scale=64.0, growth_interval=3))
    for overflow in (True, False, False):
        loss.step(overflow)
    other = Loss(LossScaling(init_scale=64.0, growth_interval=3))
    other.scaler.load_state_dict(loss.scaler.state_dict())
    other.step(overflow=False)
    assert other.scaler.get_scale() == pytest.approx(64.0)
