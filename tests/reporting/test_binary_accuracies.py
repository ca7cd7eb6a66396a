"""The three accuracies of a network whose layers become binary."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.reporting.binary_accuracies import Accuracy, accuracies, binarizations, scaled_loss, summary


def records(values, each=2, layers=3):
    """One record per epoch; every ``each`` epochs, one more layer is binary."""
    return [
        {
            "epoch": epoch + 1.0,
            "test/accuracy": value,
            "test/loss": 0.5,
            "weights/binary_layers": min(layers, epoch // each + 1),
            "weights/fully_binary": float(epoch // each + 1 >= layers),
        }
        for epoch, value in enumerate(values)
    ]


def test_three_accuracies():
    result = accuracies(records([90.0, 99.0, 95.0, 96.0, 70.0, 94.0, 93.0]), "test")
    assert result.last == Accuracy(93.0, 7.0)
    assert result.best_fully_binary == Accuracy(94.0, 6.0)
    assert result.best == Accuracy(99.0, 2.0)


def test_a_run_that_is_never_fully_binary():
    result = accuracies(records([90.0, 91.0]), "test")
    assert result.best_fully_binary is None
    assert result.best == result.last == Accuracy(91.0, 2.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_order_of_the_three_accuracies(values):
    result = accuracies(records(values), "test")
    assert result.best.value == max(values)
    assert values.index(result.best.value) + 1 == result.best.epoch  # the first among equals
    assert (result.best_fully_binary is not None) == (len(values) > 4)
    if result.best_fully_binary is not None:
        assert result.last.value <= result.best_fully_binary.value <= result.best.value
        assert result.best_fully_binary.epoch > 4


def test_a_split_without_records_is_an_error():
    with pytest.raises(ValueError, match="validation/accuracy"):
        accuracies(records([1.0]), "validation")


def test_moments_of_binarization():
    assert binarizations(records([1.0] * 8)) == [(0.0, 1), (2.0, 2), (4.0, 3)]
    assert binarizations([{"epoch": 1.0, "test/accuracy": 3.0}]) == []


@given(batch=st.integers(1, 20), batches=st.integers(1, 10), seed=st.integers(0, 100))
def test_scaled_loss_is_the_sum_of_batch_means_over_the_samples(batch, batches, seed):
    """Section 10, check 12."""
    losses = torch.rand(batches, batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    samples = batch * batches
    expected = float(losses.mean(dim=1).sum()) / samples
    scaled = scaled_loss(float(losses.mean()), samples, batch)
    assert scaled == pytest.approx(expected)
    assert scaled == pytest.approx(float(losses.mean()) / batch)


def test_scaled_loss_of_a_single_small_batch():
    assert scaled_loss(2.0, 500, 1000) == pytest.approx(2.0 / 500)


def test_scaled_loss_with_a_smaller_last_batch_is_refused():
    with pytest.raises(ValueError, match="128"):
        scaled_loss(1.0, 45_000, 128)


def test_summary():
    result = summary(records([90.0, 91.0]), {"test": (10_000, 1000), "validation": (5000, 1000)})
    assert list(result) == ["test"]
    assert result["test"]["last"] == {"value": 91.0, "epoch": 2.0}
    assert result["test"]["best_fully_binary"] is None
    assert result["test"]["loss"] == 0.5
    assert result["test"]["loss_scaled"] == pytest.approx(0.0005)
    assert summary(records([90.0]), {"test": (45_000, 128)})["test"]["loss_scaled"] is None
