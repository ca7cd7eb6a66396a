"""Slices of a mini-batch whose gradients are accumulated."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop, smallest_slice


class Recorded(Backprop):
    """Records the length of each slice; its forward pass is what torch computes in training mode."""

    def _backward(self, inputs: Tensor, targets: Tensor, share: float) -> dict[str, Tensor]:
        self.lengths.append(len(inputs))
        return {"loss": self.model(inputs).mean() * share}


def lengths(model: nn.Module, count: int, accumulate: int) -> list[int]:
    algorithm = Recorded()
    algorithm.lengths = []
    algorithm.model, algorithm.context = model, SimpleNamespace(accumulate=accumulate)
    algorithm.smallest_slice = smallest_slice(model)
    algorithm._backward_in_slices(torch.randn(count, 4), torch.zeros(count))
    return algorithm.lengths


@pytest.mark.parametrize(
    ("count", "accumulate", "expected"),
    [(100, 4, [25] * 4), (3, 4, [3]), (5, 4, [3, 2]), (7, 4, [3, 2, 2]), (8, 4, [2] * 4), (2, 4, [2]), (100, 3, [34, 33, 33])],
)
def test_batch_norm_never_gets_a_slice_of_one_image(count: int, accumulate: int, expected: list[int]) -> None:
    assert lengths(nn.BatchNorm1d(4), count, accumulate) == expected


@pytest.mark.parametrize(("count", "accumulate", "expected"), [(3, 4, [1] * 3), (5, 4, [2, 1, 1, 1]), (1, 4, [1])])
def test_other_models_get_as_many_slices_as_asked(count: int, accumulate: int, expected: list[int]) -> None:
    assert lengths(nn.Linear(4, 4), count, accumulate) == expected
