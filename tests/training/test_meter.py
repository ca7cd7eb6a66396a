"""Running means: exact over unequal batches, independent of interruptions, and aware of losses that are not finite."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.training.meter import Meter, NotFinite, on_host

batches = st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, 200)), min_size=1, max_size=30)


def feed(meter: Meter, values: list[tuple[float, int]]) -> None:
    for value, count in values:
        meter.update({"loss": torch.tensor(value)}, count)


@given(batches)
def test_means_are_weighted_by_samples(values: list[tuple[float, int]]) -> None:
    meter = Meter()
    feed(meter, values)
    assert meter.flush() is None
    expected = sum(value * count for value, count in values) / sum(count for _, count in values)
    assert meter.means()["loss"] == pytest.approx(expected, abs=1e-9)


@given(batches, batches, batches)
def test_an_interruption_changes_no_bit(
    first: list[tuple[float, int]], second: list[tuple[float, int]], third: list[tuple[float, int]]
) -> None:
    straight, before, after = Meter(), Meter(), Meter()
    for meter in (straight, before):
        feed(meter, first)
        meter.flush()
        feed(meter, second)
    after.load_state_dict(before.state_dict(), torch.device("cpu"))
    for meter in (straight, after):
        feed(meter, third)
        meter.flush()
    assert straight.means() == after.means()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_not_finite_is_named(bad: float) -> None:
    meter = Meter()
    feed(meter, [(1.0, 5), (2.0, 5), (bad, 5), (3.0, 5), (bad, 5)])
    checked, flushed = meter.check(), meter.flush()
    for broken in (checked, flushed):
        assert isinstance(broken, NotFinite)
        assert broken.steps_ago == 2
        assert repr(broken.value) == repr(bad)


def test_reset_forgets() -> None:
    meter = Meter()
    feed(meter, [(1.0, 5)])
    meter.flush()
    meter.reset()
    assert meter.means() == {}
    assert meter.flush() is None


def test_values_are_read_with_one_transfer_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers: list[torch.dtype] = []

    def cpu(values: torch.Tensor) -> torch.Tensor:
        transfers.append(values.dtype)
        return values

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    tensors = {name: torch.arange(float(size)) for size, name in enumerate("abcde", start=1)} | {"half": torch.ones(2).half()}
    copies = on_host(tensors)
    assert transfers == [torch.float32, torch.float16]
    assert list(copies) == list(tensors)
    assert all(torch.equal(copies[name], values) and copies[name].dtype == values.dtype for name, values in tensors.items())
