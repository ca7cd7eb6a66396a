from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from altprop.nn.estimators.base import Estimator
from altprop.nn.estimators.straight_through import SaturatedStraightThrough
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.units.base import attach_estimator
from altprop.nn.units.compact import compact_hard_outputs
from altprop.nn.units.hard import BinaryStep, SignStep, Staircase, SummedStaircase


class Residual(nn.Module):
    """A hard output that is saved by two layers and an addition."""

    def __init__(self, units: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), units())
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(1), units())
        self.shortcut = nn.Conv2d(4, 4, 1)
        self.last = nn.Sequential(units(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * 4, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.first(inputs)
        return self.last(self.branch(features) + self.shortcut(features))


def gradients(model: nn.Module, inputs: Tensor, compact: bool) -> list[Tensor]:
    model = copy.deepcopy(model)
    if compact:
        with compact_hard_outputs():
            scores = model(inputs)
    else:
        scores = model(inputs)
    scores.logsumexp(dim=1).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    "units", [SignStep, BinaryStep, lambda: Staircase(steps=3), lambda: SummedStaircase(steps=3), lambda: Staircase(steps=300)]
)
@pytest.mark.parametrize("estimator", [SoftHinge(), SaturatedStraightThrough()])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_identical_bit_for_bit(
    units: Callable[[], nn.Module], estimator: Estimator, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    model = Residual(units)
    attach_estimator(model, estimator)
    inputs = torch.randn(5, 3, 8, 8).to(memory_format=memory_format)
    plain, compact = gradients(model, inputs, compact=False), gradients(model, inputs, compact=True)
    assert len(plain) == len(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(plain, compact, strict=True))


class Chain(nn.Module):
    """Linear layers with hard units between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(6))
        self.units = nn.ModuleList(SignStep() for _ in range(6))

    def forward(self, inputs: Tensor) -> Tensor:
        for layer, units in zip(self.layers, self.units, strict=True):
            inputs = units(layer(inputs))
        return inputs


@pytest.mark.parametrize(("estimator", "bytes_per_unit"), [(SoftHinge(), 4), (SaturatedStraightThrough(), 2)])
def test_memory_per_unit_is_its_input_or_two_bytes(estimator: Estimator, bytes_per_unit: int) -> None:
    """A ReLU takes 4 bytes per unit: its output, which the next layer saves too."""
    from torch.profiler import ProfilerActivity, profile

    model = Chain()
    attach_estimator(model, estimator)
    inputs = torch.randn(4096, 256)
    unit = inputs.numel()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        with compact_hard_outputs():
            outputs = model(inputs)
        scores = outputs.sum()
    assert scores.requires_grad
    saved = sum(event.self_cpu_memory_usage for event in profiler.key_averages()) - outputs.numel() * 4
    assert saved <= 6.05 * unit * bytes_per_unit


def test_an_output_modified_in_place_is_saved_unchanged() -> None:
    unit = SignStep()
    unit.estimator = SoftHinge()
    inputs = torch.randn(4, 4, requires_grad=True)
    layer = nn.Linear(4, 4)
    with compact_hard_outputs():
        outputs = unit(inputs).mul_(3)
        layer(outputs).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, torch.ones(4, 4) @ outputs.detach())


def test_nothing_is_recorded_outside_the_context() -> None:
    from altprop.nn.units import compact

    with compact_hard_outputs():
        pass
    assert compact._outputs.get() is None
