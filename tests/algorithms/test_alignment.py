"""Angles, norm ratios and errors between directions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.algorithms.alignment import align, align_all, angle, bias_ratio, series_error, sign_error


@given(degrees=st.floats(0.0, 180.0), first=st.floats(1e-6, 1e6), second=st.floats(1e-6, 1e6))
def test_angles_do_not_depend_on_lengths(degrees: float, first: float, second: float) -> None:
    radians = math.radians(degrees)
    one = first * torch.tensor([1.0, 0.0], dtype=torch.float64)
    other = second * torch.tensor([math.cos(radians), math.sin(radians)], dtype=torch.float64)
    assert float(angle(one, other)) == pytest.approx(degrees, abs=1e-6)


def test_angles_are_more_exact_than_an_arc_cosine() -> None:
    """Trap 22: equal tensors have an angle of 0, not NaN, and tiny angles keep their digits."""
    weight = torch.randn(50, 30)
    assert float(angle(weight, weight)) == 0.0
    assert float(angle(weight, -weight)) == pytest.approx(180.0)
    small = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert float(angle(torch.tensor([1.0, 0.0]), small)) == pytest.approx(math.degrees(1e-9), rel=1e-6)
    assert float(angle(torch.zeros(3), torch.ones(3))) == 90.0


def test_alignment_of_a_scaled_gradient() -> None:
    gradient = {"a": torch.randn(4, 3), "b": torch.randn(2)}
    alignments = align_all({"a": 0.5 * gradient["a"], "c": torch.ones(1)}, gradient)
    assert alignments.keys() == {"a"}
    assert float(alignments["a"].angle) == pytest.approx(0.0, abs=1e-5)
    assert float(alignments["a"].norm_ratio) == pytest.approx(0.5)
    assert float(alignments["a"].relative_error) == pytest.approx(0.5)
    assert math.isfinite(float(align(torch.ones(2), torch.zeros(2)).norm_ratio))


def test_errors_of_series() -> None:
    first = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert float(series_error(first, first)) == 0.0
    assert float(series_error(first, torch.zeros(2, 2))) == pytest.approx(1.0)
    assert float(series_error(torch.zeros(2, 2), torch.zeros(2, 2))) == 0.0
    assert float(sign_error(first, -first)) == pytest.approx(0.75)


def test_bias_ratio_is_the_error_left_after_averaging() -> None:
    truth = torch.tensor([1.0, 1.0])
    assert float(bias_ratio(truth + 0.5, truth - 0.5, truth)) == 0.0
    assert float(bias_ratio(truth + 0.5, truth + 0.5, truth)) == 1.0
    assert float(bias_ratio(truth, truth, truth)) == 1.0
