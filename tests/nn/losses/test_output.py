from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altprop.nn.losses import output as losses


def slacks(scores: Tensor, targets: Tensor) -> Tensor:
    """``1 - Y x``, written out."""
    signs = torch.full_like(scores, -1.0)
    signs[torch.arange(len(targets)), targets] = 1.0
    return 1 - signs * scores


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 6), classes=st.integers(2, 6))
def test_losses_match_their_definitions(seed: int, batch: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (batch,), generator=generator)
    slack = slacks(scores, targets)
    expected = {
        losses.hinge: slack.clamp(min=0),
        losses.truncated_hinge: slack.clamp(0, 2),
        losses.squared_hinge: slack.clamp(min=0) ** 2,
        losses.log_softmax_hinge: slacks(scores.log_softmax(dim=1), targets).clamp(min=0),
    }
    for loss, values in expected.items():
        torch.testing.assert_close(loss(scores, targets), values.sum() / batch)


@pytest.mark.parametrize("loss", [losses.hinge, losses.truncated_hinge, losses.squared_hinge])
def test_margins_of_one_have_no_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    targets = torch.tensor([0, 2])
    scores = torch.full((2, 3), -1.0)
    scores[torch.arange(2), targets] = 1.0
    assert loss(scores, targets) == 0
    assert loss(-scores, targets) > 0
