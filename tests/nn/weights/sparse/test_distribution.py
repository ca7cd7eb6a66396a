"""Initial densities and masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from altprop.nn.weights.base import WeightsContext
from altprop.nn.weights.layers import weight_layers
from altprop.nn.weights.sparse.distribution import active_count, capped, erk_densities, random_mask, sparsities
from altprop.nn.weights.sparse.static import StaticSparse
from tests.models.feed_forward_suite import compose_model
from tests.nn.weights.sparse.cases import SHAPES, generator


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_active_count(units, percent):
    count = active_count(percent / 100, units)
    assert count == math.floor((1.0 - percent / 100) * units + 0.1)


@given(SHAPES, st.floats(0.05, 0.95))
def test_erk_preserves_the_total_and_prefers_thin_tensors(shapes, density):
    sizes = [math.prod(shape) for shape in shapes]
    densities = erk_densities(density, shapes)
    assert all(0 <= value <= 1 + 1e-12 for value in densities)
    assert sum(value * size for value, size in zip(densities, sizes)) == pytest.approx(density * sum(sizes))
    scales = [value / (sum(shape) / size) for value, shape, size in zip(densities, shapes, sizes) if value < 1 - 1e-9]
    assert max(scales, default=0.0) == pytest.approx(min(scales, default=0.0))


def test_distributions():
    shapes = [(8, 3, 3, 3), (8, 8, 3, 3)]
    assert sparsities("equal", [0.9, 0.8], shapes, [True, False]) == [0.9, 0.8]
    assert sparsities("uniform", [0.9, 0.8], shapes, [True, False]) == [0.0, 0.8]
    assert sparsities("uniform", [0.9, 0.8], shapes, [False, False]) == [0.9, 0.8]  # the first layer is dense already
    with pytest.raises(ValueError, match="erk"):
        sparsities("erk", [0.9, 0.8], shapes, [True, False])


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 500), st.integers(500, 5000))
def test_caps_preserve_the_total(target, cap, small, large):
    result = capped([target, target], [None, cap], [large, small])
    if target <= cap:
        assert result == [target, target]
    else:
        assert result[1] == cap
        total = (1 - result[0]) * large + (1 - cap) * small
        assert total == pytest.approx((1 - target) * (large + small), rel=1e-9)


def test_cap_of_the_mnist_perceptron():
    """Section 2.7: 1 - ((1 - S) 266200 - 100) / 265200 for the layers before the last one, which has a cap of 0.9."""
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


def test_uniform_keeps_only_the_first_layer_dense():
    """Evci et al., section 3: all layers but the first have the sparsity of the network, also if ``dense`` names the first."""
    shares = []
    for dense in ([], ["stem", "shortcut"]):
        with torch.random.fork_rng():
            model = compose_model(["model=vgg5"], input_shape=(3, 32, 32), num_classes=10)
        rule = StaticSparse(sparsity=0.9, distribution="uniform", dense=dense)
        rule.attach(model, WeightsContext(1, 1, torch.device("cpu"), generator(0)))
        metrics = rule.epoch_end(0)
        densities = [float(value) for name, value in metrics.items() if name.startswith("density/")]
        assert densities == pytest.approx([0.1] * (len(weight_layers(model)) - 1), abs=1e-3)
        shares.append(float(metrics["flops_share"]))
    assert shares[0] == shares[1] == pytest.approx(0.14, abs=0.01)
