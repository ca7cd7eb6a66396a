"""The functions that pruning is made of, compared with index sets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.prune import ThresholdPrune, below_threshold, fraction_count, keep_one, sign_flips
from tests.nn.weights.sparse.cases import SIZES


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=30))
def test_threshold_is_strict_and_applies_to_active_units_only(units):
    scores, alive = (torch.tensor(column) for column in zip(*units))
    layout = Layout((len(units),), (1,))
    below = below_threshold([scores.float().view(1, -1)], layout, alive.bool(), 1.0)
    assert below.tolist() == [place for place, (score, active) in enumerate(units) if active and score < 1.0]


@given(SIZES, st.data())
def test_every_tensor_keeps_at_least_one_unit(sizes, data):
    alive = [data.draw(st.lists(st.booleans(), min_size=size, max_size=size)) for size in sizes]
    everything = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    pruned, expected, counts, active, offset = [], [], [], [], 0
    for units, whole in zip(alive, everything):
        places = [offset + place for place, on in enumerate(units) if on]
        gone = places if whole else places[1:]
        pruned += gone
        expected += gone[1:] if gone and len(gone) == len(places) else gone
        counts.append(len(gone))
        active.append(len(places))
        offset += len(units)
    assert keep_one(torch.tensor(pruned, dtype=torch.int64), counts, active).tolist() == expected


@given(st.floats(0, 0.999), st.integers(0, 10**6))
def test_fraction_prunes_one_more_than_the_floor(fraction, active):
    count = fraction_count(fraction, active)
    assert count == min(active, int(fraction * active) + 1)
    assert 1 <= count <= active or active == 0


def test_zero_does_not_count_as_a_change_of_sign():
    new = torch.tensor([1.0, -1.0, 0.0, 1.0, -2.0, 1.0])
    old = torch.tensor([-1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert sign_flips(new, old).tolist() == [True, True, False, False, True, False]


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(1, 1000))
def test_threshold_is_its_initial_value_times_a_power_of_two(pruned, target):
    rule = ThresholdPrune(target=target)
    threshold = rule.threshold
    for count in pruned:
        rule.after_update(count)
        after = rule.threshold
        if 0.9 * target <= count <= 1.1 * target:
            assert after == threshold
        else:
            assert after == (threshold / 2 if count > target else threshold * 2)
        threshold = after
        power = math.log2(threshold / 1e-3)
        assert power == pytest.approx(round(power), abs=1e-9)
