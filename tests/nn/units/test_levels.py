from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altprop.nn.units.hard import BinaryStep, LeveledUnit, SignStep, Staircase, SummedStaircase
from altprop.nn.units.levels import Levels, binary_step, sign_step, staircase, summed_staircase

FLOATS = st.floats(-4, 4, allow_subnormal=False)
INPUTS = st.lists(FLOATS, min_size=1, max_size=20).map(lambda values: torch.tensor(values, dtype=torch.float64))
RANGES = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (-0.5, 2.0)])


@settings(max_examples=50, deadline=None)
@given(INPUTS)
def test_sign_and_binary_units_have_two_levels(inputs: Tensor) -> None:
    signs = sign_step(inputs)
    assert torch.equal(signs, torch.where(inputs > 0, 1.0, -1.0).double())
    assert torch.equal(binary_step(inputs), (signs + 1) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_both_zeros_map_to_the_lower_level(dtype: torch.dtype) -> None:
    zeros = torch.tensor([0.0, -0.0], dtype=dtype)
    assert SignStep()(zeros).tolist() == [-1, -1]
    assert BinaryStep()(zeros).tolist() == [0, 0]
    assert Staircase(steps=3)(zeros).tolist() == [0, 0]
    tiny = torch.tensor([torch.finfo(dtype).tiny, -torch.finfo(dtype).tiny], dtype=dtype)
    assert SignStep()(tiny).tolist() == [1, -1]
    assert BinaryStep()(tiny).tolist() == [1, 0]


def test_three_rises_at_and_near_their_thresholds() -> None:
    inputs = torch.tensor([0.0, 1e-6, 0.5, 0.5001, 1.0, 1.0001], dtype=torch.float64)
    expected = torch.tensor([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1], dtype=torch.float64)
    assert torch.equal(Staircase(steps=3)(inputs), expected)
    assert torch.equal(SummedStaircase(steps=3)(inputs), expected)


@settings(max_examples=50, deadline=None)
@given(INPUTS, st.integers(2, 100), RANGES)
def test_staircases_have_the_defined_levels_and_equal_the_sum_of_thresholds(
    inputs: Tensor, rises: int, limits: tuple[float, float]
) -> None:
    low, high = limits
    outputs = staircase(inputs, rises, low, high)
    allowed = torch.arange(rises + 1, dtype=torch.float64) / rises * (high - low) + low
    assert torch.isin(outputs, allowed).all()
    thresholds = [low + index * (high - low) / (rises - 1) for index in range(rises)]
    near = torch.stack([(inputs - threshold).abs() < 1e-9 for threshold in thresholds]).any(dim=0)  # rounding decides there
    counts = torch.stack([inputs > threshold for threshold in thresholds]).sum(dim=0)
    expected = counts.double() / rises * (high - low) + low
    for function in (staircase, summed_staircase):
        assert torch.allclose(function(inputs, rises, low, high)[~near], expected[~near], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(INPUTS, st.integers(2, 200))
def test_many_rises_approach_the_saturated_relu(inputs: Tensor, rises: int) -> None:
    assert (staircase(inputs, rises, 0, 1) - inputs.clamp(0, 1)).abs().max() <= 1 / rises + 1e-12


@pytest.mark.parametrize("rises", [2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_on_the_same_side_of_every_threshold(rises: int, dtype: torch.dtype) -> None:
    inputs = torch.linspace(-0.2, 1.2, 4001).to(dtype)
    exact = Levels("staircase", rises)
    assert torch.equal(exact.encode(exact.quantize(inputs.double())), exact.encode(exact.quantize(inputs)))


@settings(max_examples=50, deadline=None)
@given(INPUTS, st.sampled_from([3, 5, 255, 300]), RANGES)
def test_codes_decode_to_the_outputs_bit_for_bit(inputs: Tensor, rises: int, limits: tuple[float, float]) -> None:
    units = [Levels("sign", low=-1.0, high=1.0), Levels("binary"), Levels("staircase", rises, *limits)]
    for levels in units:
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            outputs = levels.quantize(inputs.to(dtype))
            codes = levels.encode(outputs)
            assert codes.element_size() == (1 if levels.rises <= 255 else 4)
            if dtype != torch.bfloat16 or levels.rises <= 5:
                assert torch.equal(levels.decode(codes, dtype), outputs)


def test_impossible_geometries_raise() -> None:
    with pytest.raises(ValueError, match="at least 2 steps"):
        Staircase(steps=1)
    with pytest.raises(ValueError, match="below high"):
        SummedStaircase(steps=3, low=1.0, high=1.0)


def test_outputs_preserve_shape_type_and_memory_format() -> None:
    inputs = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for unit in (SignStep(), BinaryStep(), Staircase(steps=3), SummedStaircase(steps=3)):
        for dtype in (torch.float32, torch.bfloat16):
            outputs = unit(inputs.to(dtype))
            assert outputs.shape == inputs.shape
            assert outputs.dtype == dtype
            assert outputs.is_contiguous(memory_format=torch.channels_last)


def test_levels_of_the_default_staircase() -> None:
    assert np.allclose(np.unique(Staircase()(torch.linspace(-1, 2, 301)).numpy()), [0, 0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize("unit", [SignStep(), BinaryStep(), Staircase(), Staircase(low=-1.0), SummedStaircase()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_not_written_in_place(unit: LeveledUnit, dtype: torch.dtype) -> None:
    """torch.compile of PyTorch 2.11 silently drops the gradient below an autograd.Function that returns such a tensor."""
    assert unit.levels.quantize(torch.randn(5, dtype=dtype))._version == 0
