"""Penalties and their gradients."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.nn.weights.penalties import Penalty, patch_norms
from altprop.nn.weights.sparse.static import StaticSparse
from tests.nn.weights.training import Trained, small_mlp, stored


@given(st.integers(0, 20), st.sampled_from([(3, 4), (2, 3, 3, 3), (2, 2, 1, 1)]), st.sampled_from(["l1", "group_lasso"]))
def test_penalty_gradients(seed, shape, kind):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(Penalty(coefficient=1.0, kind=kind).raw(weight), weight)
    torch.testing.assert_close(Penalty(coefficient=1.0, kind=kind).raw_gradient(weight.detach()), expected)
    assert not Penalty(coefficient=1.0, kind=kind).raw_gradient(torch.zeros(shape)).any()


def test_group_lasso_of_a_patch():
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    expected = torch.tensor([[(weight[o, i].norm() ** 2 + 1e-12) ** 0.5 for i in range(3)] for o in range(2)])
    torch.testing.assert_close(patch_norms(weight)[:, :, 0, 0], expected.double())
    patch = weight[0, 0]
    torch.testing.assert_close(
        Penalty(coefficient=1.0, kind="group_lasso").raw_gradient(weight)[0, 0], patch / (patch.norm() ** 2 + 1e-12).sqrt()
    )


def test_a_penalty_of_zero_changes_nothing_and_a_positive_one_shrinks_weights():
    zero, strong = (
        Trained(StaticSparse(sparsity=0.5, penalty=Penalty(coefficient=c)), small_mlp()).steps(10) for c in (0.0, 0.05)
    )
    plain = Trained(StaticSparse(sparsity=0.5), small_mlp()).steps(10)
    assert all(torch.equal(a, b) for a, b in zip(stored(plain.model), stored(zero.model)))
    assert sum(w.abs().sum() for w in stored(strong.model)) < 0.9 * sum(w.abs().sum() for w in stored(plain.model))
    metrics = strong.algorithm.epoch_end(1)
    total = sum(w.abs().sum() for w in stored(strong.model))
    torch.testing.assert_close(metrics["weights/penalty"], 0.05 * total.detach())
    assert "weights/penalty" not in plain.algorithm.epoch_end(1)
