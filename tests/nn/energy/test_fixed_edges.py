"""Edges with a fixed weight compute the same as other edges, packed for oneDNN (float32 on a CPU) or not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.nn.energy.edges import Edge, convolve, pool, transpose, unpool
from altprop.nn.energy.fixed_edges import fixed_convolution, fixed_pool, fixed_transpose
from altprop.nn.energy.small_maps import is_small_map
from altprop.training.cost import FlopCounter

EDGES = [
    Edge((3, 16, 16), (8, 8, 8), 3, 1, 1, "max"),
    Edge((4, 9, 11), (6, 4, 5), 3, 2, 1, "none"),
    Edge((4, 10, 10), (6, 2, 2), 2, 3, 0, "none"),  # no window reaches the last row and column
    Edge((5, 4, 4), (7, 1, 1), 3, 1, 0, "max"),
    Edge((1, 12, 12), (4, 4, 4), 5, 1, 0, "average"),
]


@pytest.mark.parametrize("edge", EDGES, ids=str)
@given(dtype=st.sampled_from([torch.float32, torch.float64]), copies=st.integers(1, 2), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_both_directions_match_the_edge(edge: Edge, dtype: torch.dtype, copies: int, seed: int) -> None:
    """This includes more samples than the weight was packed for, as when phases run side by side."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randn(*shape, generator=generator, dtype=dtype)
        return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values

    weight, bias = draw(edge.above[0], edge.below[0], edge.kernel, edge.kernel), draw(edge.above[0])
    below, unpooled = draw(3 * copies, *edge.below), draw(3 * copies, *edge.unpooled)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for optional_bias in (bias, None):
        drive = fixed_convolution(edge, weight, optional_bias, 3)(below)
        assert torch.allclose(drive, convolve(edge, below, weight, optional_bias), atol=tolerance)
    drive = fixed_transpose(edge, weight, 3)(unpooled)
    assert drive.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(drive, transpose(edge, unpooled, weight), atol=tolerance)


def test_without_onednn_the_plain_functions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = EDGES[0]
    weight, below = torch.randn(8, 3, 3, 3), torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(fixed_convolution(edge, weight, None, 2)(below), convolve(edge, below, weight, None))


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_packed_and_plain_edges_count_the_same_operations(edge: Edge) -> None:
    weight = torch.randn(edge.above[0], edge.below[0], edge.kernel, edge.kernel).contiguous(memory_format=torch.channels_last)
    below, unpooled = torch.randn(3, *edge.below), torch.randn(3, *edge.unpooled)
    up, down = fixed_convolution(edge, weight, None, 3), fixed_transpose(edge, weight, 3)
    with FlopCounter() as packed:
        up(below), down(unpooled)
    with FlopCounter() as plain:
        convolve(edge, below, weight, None), transpose(edge, unpooled, weight)
    assert packed.flops == plain.flops > 0


def test_contiguous_weights_are_applied_by_the_kernels_that_round_best() -> None:
    """Channels-last kernels have errors of 1.2e-6 to 1.7e-6 here, contiguous ones of 2e-7 to 4e-7."""
    edge = Edge((128, 8, 8), (256, 4, 4), 3, 1, 1, "max")
    generator = torch.Generator().manual_seed(0)
    weight = (torch.rand(256, 128, 3, 3, generator=generator) - 0.5) / 17
    below, unpooled = torch.rand(4, 128, 8, 8, generator=generator), torch.rand(4, 256, 8, 8, generator=generator)
    for state in (below, below.contiguous(memory_format=torch.channels_last)):
        drive = fixed_convolution(edge, weight, None, 4)(state)
        assert drive.is_contiguous()
        assert torch.equal(drive, torch.nn.functional.conv2d(below, weight, padding=1))
        exact = convolve(edge, state.double(), weight.double(), None)
        assert (drive - exact).abs().max() < 6e-7 * exact.abs().max()
    for state in (unpooled, unpooled.contiguous(memory_format=torch.channels_last)):
        drive = fixed_transpose(edge, weight, 4)(state)
        assert drive.is_contiguous()
        exact = transpose(edge, state.double(), weight.double())
        assert (drive - exact).abs().max() < 6e-7 * exact.abs().max()


@pytest.mark.parametrize("edge", EDGES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_with_reused_memory_is_the_pooling_of_the_edge(edge: Edge, layout: torch.memory_format) -> None:
    """Ties, which are frequent in saturated networks, go to the first position in row-major order."""
    fixed = fixed_pool(edge)
    for _ in range(2):
        drive = torch.randint(3, (2, *edge.unpooled)).float().contiguous(memory_format=layout)
        (pooled, routing), (expected, other) = fixed(drive), pool(edge, drive)
        assert torch.equal(pooled, expected)
        if edge.pool == "max":
            first, indices = torch.nn.functional.max_pool2d(drive.contiguous(), 2, return_indices=True)
            assert torch.equal(pooled, first)
            assert torch.equal(routing.indices, indices)
            assert torch.equal(other.indices, indices)
        above = torch.rand_like(pooled)
        spread = unpool(edge, above, routing)
        assert torch.equal(spread, unpool(edge, above, other))
        assert spread.is_contiguous(memory_format=layout) or spread.shape[1] == 1 or edge.pool != "max"


@pytest.mark.parametrize(
    "edge",
    [
        Edge((512, 4, 4), (512, 1, 1), 3, pool="max"),  # the paper's CIFAR-10 network
        Edge((130, 4, 4), (300, 2, 2), 3),
        Edge((64, 3, 3), (384, 2, 2), 2),
        Edge((70, 6, 6), (257, 2, 2), 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_small_maps_are_as_exact_as_the_contiguous_kernels(edge: Edge, with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(edge.above[0], edge.below[0], edge.kernel, edge.kernel, generator=generator)
    bias = torch.randn(edge.above[0], generator=generator) if with_bias else None
    state, unpooled = torch.rand(4, *edge.below, generator=generator), torch.rand(4, *edge.unpooled, generator=generator)
    assert is_small_map(edge, weight)
    assert not is_small_map(edge, weight.double())
    assert not is_small_map(edge, weight.contiguous(memory_format=torch.channels_last))
    up, down = fixed_convolution(edge, weight, bias, 4), fixed_transpose(edge, weight, 4)
    with FlopCounter() as counted:
        results = up(state), down(unpooled)
    with FlopCounter() as expected:
        others = convolve(edge, state, weight, bias), transpose(edge, unpooled, weight)
    assert counted.flops == expected.flops > 0
    double = None if bias is None else bias.double()
    exact = convolve(edge, state.double(), weight.double(), double), transpose(edge, unpooled.double(), weight.double())
    for result, other, truth in zip(results, others, exact, strict=True):
        assert result.shape == truth.shape
        assert (result - truth).norm() < 1.06 * (other - truth).norm()
        assert (result - truth).norm() < 4e-7 * truth.norm()
    assert results[1].is_contiguous()
