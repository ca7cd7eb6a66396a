from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.nn.units.saturating import ClippedAbs, HardSigmoid, SaturatedReLU

INPUTS = torch.linspace(-3, 3, 25, dtype=torch.float64)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (SaturatedReLU(), INPUTS.clamp(0, 1)),
        (SaturatedReLU(ceiling=2.0), INPUTS.clamp(0, 2)),
        (SaturatedReLU(ceiling=1.5, slope=0.5), (0.5 * INPUTS).clamp(0, 1.5)),
        (ClippedAbs(), INPUTS.abs().clamp(max=1)),
        (HardSigmoid(), ((INPUTS + 1) / 2).clamp(0, 1)),
    ],
)
def test_values_match_the_definition(unit: nn.Module, expected: torch.Tensor) -> None:
    torch.testing.assert_close(unit(INPUTS), expected)


@pytest.mark.parametrize("unit", [SaturatedReLU(ceiling=1.5, slope=0.5), ClippedAbs(), HardSigmoid()])
def test_derivatives_match_finite_differences(unit: nn.Module) -> None:
    inputs = (INPUTS + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(unit, inputs)


def test_slope_and_ceiling_must_be_positive() -> None:
    for arguments in ({"ceiling": 0.0}, {"slope": -1.0}):
        with pytest.raises(ValueError, match="positive"):
            SaturatedReLU(**arguments)


@pytest.mark.parametrize(
    ("unit", "bound", "slope"),
    [
        (SaturatedReLU(), 1.0, 1.0),
        (SaturatedReLU(ceiling=1.5, slope=0.5), 3.0, 0.5),
        (ClippedAbs(), 1.0, 1.0),
        (ClippedAbs(), -1.0, -1.0),
        (HardSigmoid(), 1.0, 0.5),
    ],
)
def test_the_derivative_at_the_ceiling_is_the_slope_below_it(unit: nn.Module, bound: float, slope: float) -> None:
    inputs = torch.tensor([bound, 3 * bound], requires_grad=True)
    unit(inputs).sum().backward()
    assert inputs.grad.tolist() == [slope, 0.0]


@pytest.mark.parametrize(("unit", "bound"), [(SaturatedReLU(), 0.0), (HardSigmoid(), -1.0)])
def test_the_derivative_at_the_floor_is_zero(unit: nn.Module, bound: float) -> None:
    inputs = torch.tensor(bound, requires_grad=True)
    unit(inputs).backward()
    assert inputs.grad == 0
