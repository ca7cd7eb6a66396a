"""Redistribution ends, conserves the number of units and follows the survivors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors, WithinTensor
from tests.nn.weights.sparse.cases import generator


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=6), st.integers(0, 9))
def test_redistribution_always_ends_and_conserves_the_total(tensors, seed):
    pruned, survivors, free = (list(column) for column in zip(*tensors))
    grown = ProportionalToSurvivors().counts(pruned, survivors, free, generator(seed))
    assert all(0 <= count <= room for count, room in zip(grown, free))
    total, room = sum(pruned), sum(free)
    # the published clip of a negative remainder may place a few units too many, but never too few while there is room
    assert min(total, room) <= sum(grown) <= total + len(tensors)
    within = WithinTensor().counts(pruned, survivors, free, generator(seed))
    assert within == [min(lost, place) for lost, place in zip(pruned, free)]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(0, 500))
def test_growth_is_in_proportion_to_survivors(survivors, total):
    pruned = [total] + [0] * (len(survivors) - 1)
    grown = ProportionalToSurvivors().counts(pruned, survivors, [10**6] * len(survivors), generator())
    requests = [round(count / sum(survivors) * total) for count in survivors]
    differing = [place for place, (count, request) in enumerate(zip(grown, requests)) if count != request]
    assert len(differing) <= 1
    assert sum(grown) >= total


def test_a_full_tensor_with_the_largest_share_does_not_block_the_loop():
    """Section 9, trap 6: the published loop asks the same full tensor forever."""
    proportional = ProportionalToSurvivors().counts
    for seed in range(20):
        grown = proportional([1, 0, 0], [900, 10, 10], [0, 3, 9], generator(seed))
        assert sum(grown) == 1
        assert grown[0] == 0
    assert proportional([7, 7], [0, 0], [5, 5], generator()) == [5, 5]
    assert proportional([3, 0], [0, 0], [0, 0], generator()) == [0, 0]
