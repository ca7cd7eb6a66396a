"""The order of an epoch, and the shares of ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.data.order import epoch_order, evaluation_slices, training_slices


@given(st.integers(1, 200), st.integers(1, 6), st.integers(1, 10), st.booleans())
def test_training_slices_are_equal_disjoint_and_skip_almost_nothing(count, world_size, per_rank_size, drop_last):
    batch_size = per_rank_size * world_size
    per_rank = [training_slices(count, batch_size, drop_last, rank, world_size) for rank in range(world_size)]
    positions = []
    for shares in zip(*per_rank, strict=True):
        assert len({share.stop - share.start for share in shares}) == 1
        positions += [position for share in shares for position in range(share.start, share.stop)]
    assert positions == sorted(set(positions))
    assert count - len(positions) < (batch_size if drop_last else world_size)


@given(st.integers(1, 100), st.integers(1, 6), st.integers(1, 20))
def test_evaluation_slices_cover_every_sample_once(count, world_size, batch_size):
    shares = [share for rank in range(world_size) for share in evaluation_slices(count, batch_size, rank, world_size)]
    assert sorted(position for share in shares for position in range(share.start, share.stop)) == list(range(count))
    assert all(share.stop > share.start for share in shares)


def test_a_batch_size_that_ranks_cannot_divide_is_rejected():
    with pytest.raises(ValueError, match="3 ranks"):
        training_slices(10, 4, False, 0, 3)


def test_order_is_stable_across_versions():
    """The order is part of what a seed means: changing it changes every stored result."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == [5, 1, 7, 0, 3, 6, 2, 4]
