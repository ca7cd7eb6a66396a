"""Random shapes and sizes for the tests of the functions that structure updates are made of."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=4,
)
"""Shapes of linear and convolutional weights."""
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
"""Numbers of units per tensor."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
