"""Flat buffers of units, compared with index sets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.nn.weights.sparse.layout import (
    Layout,
    Places,
    few_true_indices,
    kth_smallest,
    segment_counts,
    smallest,
    true_indices,
    unit_scores,
    unit_shape,
)
from tests.nn.weights.sparse.cases import SHAPES, SIZES, generator


@given(SHAPES, st.integers(1, 4))
def test_units_cover_all_weights(shapes, granularity):
    layout = Layout.of(shapes, granularity)
    assert [size * width for size, width in zip(layout.sizes, layout.widths)] == [math.prod(shape) for shape in shapes]
    assert layout.offsets[-1] == layout.total
    for shape, width in zip(shapes, layout.widths):
        if len(shape) == 2 or granularity == 4:
            assert width == 1


@given(SHAPES, st.integers(1, 4), st.integers(0, 5))
def test_scores_are_mean_magnitudes(shapes, granularity, seed):
    weights = [torch.randn(shape, generator=generator(seed), dtype=torch.float64) for shape in shapes]
    layout = Layout.of(shapes, granularity)
    scores = unit_scores(weights, layout)
    expected = []
    for weight in weights:
        units = weight.reshape(math.prod(unit_shape(weight.shape, granularity)), -1)
        expected.extend(sum(abs(float(value)) for value in unit) / len(unit) for unit in units)
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))


@given(st.lists(st.booleans(), max_size=70))
def test_true_indices_eight_at_a_time_and_one_at_a_time(flags):
    expected = [place for place, value in enumerate(flags) if value]
    assert true_indices(torch.tensor(flags, dtype=torch.bool)).tolist() == expected
    assert few_true_indices(torch.tensor(flags, dtype=torch.bool)).tolist() == expected


def test_units_of_1x1_convolutions_are_the_same_from_granularity_2_on():
    assert len({Layout.of([(5, 4, 1, 1)], granularity) for granularity in (2, 3, 4)}) == 1
    with pytest.raises(ValueError, match="granularity"):
        Layout.of([(5, 4, 1, 1)], 0)


@given(SIZES, st.data())
def test_segment_counts(sizes, data):
    layout = Layout(tuple(sizes), tuple(1 for _ in sizes))
    indices = sorted(data.draw(st.sets(st.integers(0, layout.total - 1))))
    counts = segment_counts(torch.tensor(indices, dtype=torch.int64), layout.boundaries())
    pairs = list(zip(layout.offsets, layout.offsets[1:]))
    assert counts.tolist() == [sum(low <= index < high for index in indices) for low, high in pairs]


@given(SIZES, st.data())
def test_smallest_is_a_stable_sort_of_every_segment(sizes, data):
    values = [data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.2, 1.0]), min_size=size, max_size=size)) for size in sizes]
    counts = [data.draw(st.integers(0, size)) for size in sizes]
    expected, offset = [], 0
    for segment, count in zip(values, counts):
        order = sorted(range(len(segment)), key=lambda place: (segment[place], place))
        expected += [offset + place for place in order[:count]]
        offset += len(segment)
    flat = torch.tensor([value for segment in values for value in segment])
    assert smallest(flat, sizes, counts).tolist() == sorted(expected)


def test_the_kth_value_is_the_same_from_either_kernel():
    """CUDA has no deterministic kernel for kthvalue; sorting serves there, and gives the same value."""
    values = torch.tensor([3.0, 1.0, 1.0, float("inf"), -2.0])
    for k in range(1, 6):
        assert kth_smallest(values, k) == values.sort().values[k - 1]
    assert kth_smallest(values.to("meta"), 2).shape == ()


def test_places_say_where_every_unit_is():
    places = Places.of(Layout((3, 1, 2), (1, 1, 1)))
    assert places.tensor.tolist() == [0, 0, 0, 1, 2, 2]
    assert places.position.tolist() == [0, 1, 2, 0, 0, 1]
