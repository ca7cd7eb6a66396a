"""Tied weights: allocation, gradients, penalties."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.tied import Tied, TiedWeights, bank_size
from altprop.problems import ConfigError
from tests.nn.weights.training import Trained, batch, small_mlp, small_wrn, stored

SHAPES = st.one_of(
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
)


@given(SHAPES, st.floats(0.0, 0.95), st.sampled_from(["element", "kernel"]), st.integers(0, 9))
def test_allocation(shape, sparsity, level, seed):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.Size(shape).numel() // (torch.Size(shape[2:]).numel() if level == "kernel" else 1)
    size = max(1, bank_size(sparsity, positions))
    tied = Tied(shape, size, level, generator)
    allocation = tied.allocation()
    uses = allocation.bincount(minlength=size)
    assert len(allocation) == positions
    assert uses.min() >= 1
    assert uses.max() - uses.min() <= 1
    bank = torch.randn(size, *tied.kernel, dtype=torch.float64, requires_grad=True)
    weight = tied(bank)
    assert weight.shape == shape
    assert torch.equal(weight.reshape(positions, *tied.kernel), bank[allocation])
    gradient = torch.randn(shape, dtype=torch.float64)
    weight.backward(gradient)
    expected = torch.zeros_like(bank).index_add(0, allocation, gradient.reshape(positions, *tied.kernel))
    torch.testing.assert_close(bank.grad, expected)


def test_free_values_are_rounded_half_to_even():
    assert [bank_size(0.5, n) for n in (1, 2, 3, 5, 7)] == [0, 1, 2, 2, 4]


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
def test_as_many_free_values_as_weights_is_the_dense_network(build):
    plain = build()
    rule = TiedWeights(sparsity=0.0, zero_first=False)
    tied = Trained(rule, build())
    inputs, _ = batch(0)
    assert torch.equal(plain.train()(inputs), tied.model.train()(inputs))
    assert all(len(bank) == tied.positions for bank, tied in zip(rule.banks, rule.tied))


@pytest.mark.parametrize("level", ["element", "kernel"])
def test_ties_hold_during_training(level):
    trained = Trained(TiedWeights(sparsity=0.75, level=level), small_wrn()).steps(6)
    for tied, bank, weight in zip(trained.rule.tied, trained.rule.banks, stored(trained.model)):
        assert weight is bank
        assert torch.equal(tied(bank).reshape(tied.positions, *tied.kernel), bank[tied.allocation()])
    convolution = next(tied for tied in trained.rule.tied if len(tied.shape) == 4)
    assert convolution.kernel == ((3, 3) if level == "kernel" else ())
    total = sum(parameter.numel() for parameter in trained.model.parameters())
    assert trained.rule.epoch_end(0)["nonzero_parameters"] == total


def test_the_first_entry_of_a_linear_bank_starts_at_zero_and_is_trained():
    trained = Trained(TiedWeights(sparsity=0.5), small_mlp())
    assert all(bank[0] == 0 for bank in trained.rule.banks)
    assert all(bank[1:].abs().min() > 0 for bank in trained.rule.banks)
    trained.step()
    assert all(bank[0] != 0 for bank in trained.rule.banks)
    assert all(bank[0] != 0 for bank in Trained(TiedWeights(sparsity=0.5, zero_first=False), small_mlp()).rule.banks)


def test_banks_start_like_the_dense_weights():
    weights = small_mlp().features[0].linear.weight
    bank = Trained(TiedWeights(sparsity=0.5, zero_first=False), small_mlp()).rule.banks[0]
    assert set(bank.tolist()) <= set(weights.flatten().tolist())


def test_rescaled_gradients():
    plain = Trained(TiedWeights(sparsity=0.7), small_mlp(), momentum=0.0, nesterov=False, weight_decay=0.0)
    scaled = Trained(
        TiedWeights(sparsity=0.7, rescale_gradient=True), small_mlp(), momentum=0.0, nesterov=False, weight_decay=0.0
    )
    before = [bank.detach().clone() for bank in plain.rule.banks]
    plain.step()
    scaled.step()
    for old, one, other, tied in zip(before, plain.rule.banks, scaled.rule.banks, plain.rule.tied):
        torch.testing.assert_close((other - old) * (tied.positions / tied.size), one - old)


@pytest.mark.parametrize("kind", ["l1", "group_lasso"])
@pytest.mark.parametrize("level", ["element", "kernel"])
def test_penalties(kind, level):
    """L1 counts every free value once; the group lasso is that of the expanded convolutions (section 5.3)."""
    coefficient = 0.01
    rule = TiedWeights(sparsity=0.6, level=level, penalty=Penalty(coefficient=coefficient, kind=kind))
    trained = Trained(rule, small_wrn())
    value = torch.zeros((), dtype=torch.float64)
    for tied, bank in zip(rule.tied, rule.banks):
        expanded = kind == "group_lasso" and len(tied.shape) == 4
        value = value + coefficient * (rule.penalty.raw(tied(bank)) if expanded else bank.abs().sum())
    torch.testing.assert_close(rule.epoch_end(0)["penalty"], value.detach())
    expected = torch.autograd.grad(value, rule.banks)
    for bank in rule.banks:
        bank.grad = torch.zeros_like(bank)
    rule.adjust_gradients(trained.model.parameters())
    for bank, gradient in zip(rule.banks, expected):
        torch.testing.assert_close(bank.grad, gradient)


def test_resumes_with_its_allocation():
    first = Trained(TiedWeights(sparsity=0.7), small_mlp()).steps(5)
    second = Trained(TiedWeights(sparsity=0.7), small_mlp(), seed=9)
    assert not torch.equal(first.rule.tied[0].permutation, second.rule.tied[0].permutation)
    second.algorithm.load_state_dict(copy.deepcopy(first.algorithm.state_dict()))
    inputs, _ = batch(3)
    assert torch.equal(first.model.eval()(inputs), second.model.eval()(inputs))


def test_refuses_an_empty_bank():
    with pytest.raises(ConfigError, match="no free value"):
        Trained(TiedWeights(sparsity=0.99), small_mlp())
    assert [problem.key for problem in TiedWeights.check({"sparsity": 1.0}, {})] == ["algorithm.weights.sparsity"]
