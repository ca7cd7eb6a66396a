"""The pure functions of sparse structure updates, against index sets and against the laws they must obey."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from altprop.nn.weights.sparse.distribution import active_count, capped, erk_densities, random_mask, sparsities
from altprop.nn.weights.sparse.grow import largest_free, random_free, random_free_on_device
from altprop.nn.weights.sparse.layout import (
    Layout,
    few_true_indices,
    segment_counts,
    true_indices,
    unit_scores,
    unit_shape,
)
from altprop.nn.weights.sparse.prune import adapted_threshold, below_threshold, fraction_count, keep_one, sign_flips, smallest
from altprop.nn.weights.sparse.redistribute import proportional, within

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=4,
)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- layout ----------------------------------------------------------------------------------------------------------------


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
def test_true_entries_are_found_eight_at_a_time_and_one_at_a_time(chosen):
    expected = [place for place, value in enumerate(chosen) if value]
    assert true_indices(torch.tensor(chosen, dtype=torch.bool)).tolist() == expected
    assert few_true_indices(torch.tensor(chosen, dtype=torch.bool)).tolist() == expected


def test_one_by_one_convolutions_have_the_same_units_from_granularity_2_on():
    assert len({Layout.of([(5, 4, 1, 1)], granularity) for granularity in (2, 3, 4)}) == 1
    with pytest.raises(ValueError, match="granularity"):
        Layout.of([(5, 4, 1, 1)], 0)


@given(SIZES, st.data())
def test_segment_counts(sizes, data):
    layout = Layout(tuple(sizes), tuple(1 for _ in sizes))
    chosen = sorted(data.draw(st.sets(st.integers(0, layout.total - 1))))
    counts = segment_counts(torch.tensor(chosen, dtype=torch.int64), layout.boundaries())
    pairs = list(zip(layout.offsets, layout.offsets[1:]))
    assert counts.tolist() == [sum(low <= index < high for index in chosen) for low, high in pairs]


# -- prune -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=30))
def test_threshold_is_strict_and_sees_active_units_only(units):
    scores, alive = (torch.tensor(column) for column in zip(*units))
    layout = Layout((len(units),), (1,))
    found = below_threshold([scores.float().view(1, -1)], layout, alive.bool(), 1.0)
    assert found.tolist() == [place for place, (score, active) in enumerate(units) if active and score < 1.0]


@given(SIZES, st.data())
def test_a_tensor_keeps_its_first_unit(sizes, data):
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


@given(st.floats(0, 0.999), st.integers(0, 10**6))
def test_fraction_prunes_one_more_than_the_floor(fraction, active):
    count = fraction_count(fraction, active)
    assert count == min(active, int(fraction * active) + 1)
    assert 1 <= count <= active or active == 0


def test_a_zero_is_no_change_of_sign():
    new = torch.tensor([1.0, -1.0, 0.0, 1.0, -2.0, 1.0])
    old = torch.tensor([-1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert sign_flips(new, old).tolist() == [True, True, False, False, True, False]


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(1, 1000))
def test_the_threshold_stays_a_power_of_two_times_its_start(pruned, target):
    threshold = 1e-3
    for count in pruned:
        after = adapted_threshold(threshold, count, target, 0.1, 2.0)
        if 0.9 * target <= count <= 1.1 * target:
            assert after == threshold
        else:
            assert after == (threshold / 2 if count > target else threshold * 2)
        threshold = after
        power = math.log2(threshold / 1e-3)
        assert power == pytest.approx(round(power), abs=1e-9)


# -- grow ------------------------------------------------------------------------------------------------------------------


@st.composite
def growth(draw):
    sizes = draw(SIZES)
    taken = [draw(st.lists(st.booleans(), min_size=size, max_size=size)) for size in sizes]
    free = [units.count(False) for units in taken]
    counts = [draw(st.integers(0, room)) for room in free]
    return Layout(tuple(sizes), tuple(1 for _ in sizes)), torch.tensor([on for units in taken for on in units]), counts, free


@given(growth(), st.integers(0, 3))
def test_random_growth_takes_the_wanted_number_of_free_units(case, seed):
    layout, taken, counts, free = case
    for grown in (
        random_free(taken, layout, counts, free, generator(seed)),
        random_free_on_device(taken, layout, torch.tensor(counts), generator(seed)).nonzero().view(-1),
    ):
        assert grown.unique().numel() == grown.numel() == sum(counts)
        assert not taken[grown].any()
        assert segment_counts(grown.sort().values, layout.boundaries()).tolist() == counts
        again = random_free(taken, layout, counts, free, generator(seed))
        assert torch.equal(again, random_free(taken, layout, counts, free, generator(seed)))


def test_growth_on_the_device_takes_what_there_is():
    layout = Layout((4, 3), (1, 1))
    taken = torch.tensor([True, True, False, True, False, False, True])
    grown = random_free_on_device(taken, layout, torch.tensor([3, 1]), generator())
    assert grown[:4].tolist() == [False, False, True, False]
    assert grown[4:].sum() == 1


@pytest.mark.parametrize("count", [3, 12], ids=["guessed", "listed"])
@pytest.mark.parametrize("on_device", [False, True])
def test_growth_is_uniform_over_the_free_units(count, on_device):
    """Chi-square over many draws; the sizes choose between guessing and listing."""
    layout = Layout((40, 40), (1, 1))
    taken = torch.zeros(80, dtype=torch.bool)
    taken[torch.arange(0, 80, 2)] = True
    hits = torch.zeros(80, dtype=torch.int64)
    stream = generator(7)
    draws = 1500
    for _ in range(draws):
        if on_device:
            hits += random_free_on_device(taken, layout, torch.tensor([count, 1]), stream)
        else:
            hits[random_free(taken, layout, [count, 1], [20, 20], stream)] += 1
    assert not hits[taken].any()
    first, second = hits[:40][~taken[:40]], hits[40:][~taken[40:]]
    assert first.sum() == draws * count
    assert second.sum() == draws
    # draws without replacement vary less than multinomial ones, by (n - k) / (n - 1)
    spread = (20 - count) / 19
    expected = draws * count / 20
    statistic = float(((first - expected) ** 2 / expected).sum()) / spread
    assert 1e-4 < stats.chi2.sf(statistic, 19) < 1 - 1e-4
    assert stats.chisquare(second.numpy()).pvalue > 1e-4


def test_pairs_grow_as_often_as_chance_says():
    """Not only single positions: all pairs out of six free ones are equally likely."""
    layout = Layout((24,), (1,))
    taken = torch.ones(24, dtype=torch.bool)
    taken[torch.tensor([1, 4, 9, 13, 17, 22])] = False
    for function in (
        lambda stream: random_free(taken, layout, [2], [6], stream),
        lambda stream: random_free_on_device(taken, layout, torch.tensor([2]), stream).nonzero().view(-1),
    ):
        stream, seen = generator(3), {}
        for _ in range(3000):
            pair = tuple(sorted(function(stream).tolist()))
            seen[pair] = seen.get(pair, 0) + 1
        assert len(seen) == 15
        assert stats.chisquare(list(seen.values())).pvalue > 1e-4


@given(growth(), st.integers(0, 3))
def test_gradient_growth_takes_the_largest(case, seed):
    layout, taken, counts, _ = case
    values = torch.randint(4, (layout.total,), generator=generator(seed)).float()
    expected = []
    for low, high, count in zip(layout.offsets, layout.offsets[1:], counts):
        places = [place for place in range(low, high) if not taken[place]]
        expected += sorted(places, key=lambda place: (-float(values[place]), place))[:count]
    assert largest_free(values, taken, layout, counts).tolist() == sorted(expected)


# -- redistribute ----------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=6), st.integers(0, 9))
def test_redistribution_always_ends_and_conserves(tensors, seed):
    pruned, survivors, free = (list(column) for column in zip(*tensors))
    grown = proportional(pruned, survivors, free, generator(seed))
    assert all(0 <= count <= room for count, room in zip(grown, free))
    total, room = sum(pruned), sum(free)
    # the published clip of a negative remainder may place a few too many, never too few while there is room
    assert min(total, room) <= sum(grown) <= total + len(tensors)
    assert within(pruned, free) == [min(lost, place) for lost, place in zip(pruned, free)]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(0, 500))
def test_growth_is_in_proportion_to_survivors(survivors, total):
    pruned = [total] + [0] * (len(survivors) - 1)
    grown = proportional(pruned, survivors, [10**6] * len(survivors), generator())
    requests = [round(count / sum(survivors) * total) for count in survivors]
    differing = [place for place, (got, asked) in enumerate(zip(grown, requests)) if got != asked]
    assert len(differing) <= 1
    assert sum(grown) >= total


def test_a_full_tensor_with_the_largest_share_does_not_hold_up_the_loop():
    """Section 9, trap 6: the published loop asks the same full tensor for ever."""
    for seed in range(20):
        grown = proportional([1, 0, 0], [900, 10, 10], [0, 3, 9], generator(seed))
        assert sum(grown) == 1
        assert grown[0] == 0
    assert proportional([7, 7], [0, 0], [5, 5], generator()) == [5, 5]
    assert proportional([3, 0], [0, 0], [0, 0], generator()) == [0, 0]


# -- densities -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_active_count(units, percent):
    count = active_count(percent / 100, units)
    assert count == math.floor((1.0 - percent / 100) * units + 0.1)


@given(SHAPES, st.floats(0.05, 0.95))
def test_erk_keeps_the_total_and_prefers_thin_tensors(shapes, density):
    sizes = [math.prod(shape) for shape in shapes]
    densities = erk_densities(density, shapes)
    assert all(0 <= value <= 1 + 1e-12 for value in densities)
    assert sum(value * size for value, size in zip(densities, sizes)) == pytest.approx(density * sum(sizes))
    scales = [value / (sum(shape) / size) for value, shape, size in zip(densities, shapes, sizes) if value < 1 - 1e-9]
    assert max(scales, default=0.0) == pytest.approx(min(scales, default=0.0))


def test_distributions():
    shapes = [(8, 3, 3, 3), (8, 8, 3, 3)]
    assert sparsities("equal", [0.9, 0.8], shapes) == [0.9, 0.8]
    assert sparsities("uniform", [0.9, 0.8], shapes) == [0.0, 0.8]
    with pytest.raises(ValueError, match="erk"):
        sparsities("erk", [0.9, 0.8], shapes)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 500), st.integers(500, 5000))
def test_caps_keep_the_total(wanted, cap, small, large):
    result = capped([wanted, wanted], [None, cap], [large, small])
    if wanted <= cap:
        assert result == [wanted, wanted]
    else:
        assert result[1] == cap
        kept = (1 - result[0]) * large + (1 - cap) * small
        assert kept == pytest.approx((1 - wanted) * (large + small), rel=1e-9)


def test_the_cap_of_the_mnist_perceptron():
    """Section 2.7: 1 - ((1 - S) 266200 - 100) / 265200 for the layers before the last one, whose target is 0.9."""
    for target in (0.95, 0.98, 0.99):
        rest = 1 - ((1 - target) * 266_200 - 100) / 265_200
        assert capped([target] * 3, [None, None, 0.9], [235_200, 30_000, 1_000]) == pytest.approx([rest, rest, 0.9])


def test_random_masks_are_uniform():
    hits = torch.zeros(30)
    stream = generator(1)
    for _ in range(2000):
        mask = random_mask([20, 10], [5, 9], stream)
        assert mask[:20].sum() == 5
        assert mask[20:].sum() == 9
        hits += mask
    assert stats.chisquare(hits[:20].numpy().astype(float)).pvalue > 1e-4
