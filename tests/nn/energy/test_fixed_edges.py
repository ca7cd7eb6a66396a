"""Edges with a fixed weight compute the same as other edges, packed for oneDNN (float32 on a CPU) or not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.nn.energy.edges import Edge, convolve, transpose
from altprop.nn.energy.fixed_edges import fixed_convolution, fixed_transpose
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
    weight = torch.randn(edge.above[0], edge.below[0], edge.kernel, edge.kernel)
    below, unpooled = torch.randn(3, *edge.below), torch.randn(3, *edge.unpooled)
    up, down = fixed_convolution(edge, weight, None, 3), fixed_transpose(edge, weight, 3)
    with FlopCounter() as packed:
        up(below), down(unpooled)
    with FlopCounter() as plain:
        convolve(edge, below, weight, None), transpose(edge, unpooled, weight)
    assert packed.flops == plain.flops > 0
