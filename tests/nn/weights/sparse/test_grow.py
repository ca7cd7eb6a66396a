"""Growth: the right number of free units, uniformly drawn or with the largest values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from altprop.nn.weights.sparse.grow import largest_free, random_free, random_free_on_device
from altprop.nn.weights.sparse.layout import Layout, Places, segment_counts
from tests.nn.weights.sparse.cases import SIZES, generator


@st.composite
def growth(draw):
    sizes = draw(SIZES)
    taken = [draw(st.lists(st.booleans(), min_size=size, max_size=size)) for size in sizes]
    free = [units.count(False) for units in taken]
    counts = [draw(st.integers(0, room)) for room in free]
    return Layout(tuple(sizes), tuple(1 for _ in sizes)), torch.tensor([on for units in taken for on in units]), counts, free


@given(growth(), st.integers(0, 3))
def test_random_growth_takes_the_right_number_of_free_units(case, seed):
    layout, taken, counts, free = case
    for grown in (
        random_free(taken, layout, counts, free, generator(seed)),
        random_free_on_device(taken, Places.of(layout), torch.tensor(counts), generator(seed)).nonzero().view(-1),
    ):
        assert grown.unique().numel() == grown.numel() == sum(counts)
        assert not taken[grown].any()
        assert segment_counts(grown.sort().values, layout.boundaries()).tolist() == counts
        again = random_free(taken, layout, counts, free, generator(seed))
        assert torch.equal(again, random_free(taken, layout, counts, free, generator(seed)))


def test_growth_on_the_device_takes_all_free_units_if_there_are_too_few():
    layout = Layout((4, 3), (1, 1))
    taken = torch.tensor([True, True, False, True, False, False, True])
    grown = random_free_on_device(taken, Places.of(layout), torch.tensor([3, 1]), generator())
    assert grown[:4].tolist() == [False, False, True, False]
    assert grown[4:].sum() == 1


@pytest.mark.parametrize("count", [3, 12], ids=["guessed", "listed"])
@pytest.mark.parametrize("on_device", [False, True])
def test_growth_is_uniform_over_the_free_units(count, on_device):
    """A chi-square test over many draws. The count decides between guessing and listing."""
    layout = Layout((40, 40), (1, 1))
    taken = torch.zeros(80, dtype=torch.bool)
    taken[torch.arange(0, 80, 2)] = True
    hits = torch.zeros(80, dtype=torch.int64)
    stream = generator(7)
    draws = 1500
    for _ in range(draws):
        if on_device:
            hits += random_free_on_device(taken, Places.of(layout), torch.tensor([count, 1]), stream)
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


def test_all_pairs_of_free_units_are_equally_likely():
    """Not only single positions, but also pairs out of six free ones."""
    layout = Layout((24,), (1,))
    taken = torch.ones(24, dtype=torch.bool)
    taken[torch.tensor([1, 4, 9, 13, 17, 22])] = False
    for function in (
        lambda stream: random_free(taken, layout, [2], [6], stream),
        lambda stream: random_free_on_device(taken, Places.of(layout), torch.tensor([2]), stream).nonzero().view(-1),
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
