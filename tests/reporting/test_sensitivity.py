"""Ranking layers by sensitivity."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.reporting.sensitivity import ascending_order, mean_accuracies, read_sensitivity

LAYERS = ("a", "b", "c")


def records(binary, values, metric="validation/accuracy"):
    flags = {f"weights/binary/{name}": float(name in binary) for name in LAYERS}
    return [
        {"epoch": epoch + 1.0, metric: value, "weights/binary_layers": len(binary), "weights/fully_binary": 0.0, **flags}
        for epoch, value in enumerate(values)
    ]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_the_least_sensitive_layer_is_first(values):
    order = ascending_order(values)
    assert sorted(order) == list(range(1, len(values) + 1))
    ranked = [values[place - 1] for place in order]
    assert ranked == sorted(values, reverse=True)
    for one, two in pairwise(order):
        assert values[one - 1] > values[two - 1] or one < two  # ties by forward order


def test_runs_are_read_and_averaged():
    runs = [read_sensitivity(records("b", values)) for values in ([90.0, 92.0, 91.0], [94.0, 80.0])]
    runs.append(read_sensitivity(records("a", [70.0])))
    assert [run.accuracy for run in runs] == [92.0, 94.0, 70.0]
    assert {run.binary for run in runs} == {"a", "b"}
    assert mean_accuracies(runs) == {"a": 70.0, "b": 93.0, "c": None}


def test_the_test_split_is_used_without_a_validation_split():
    assert read_sensitivity(records("a", [70.0, 71.0], "test/accuracy")).metric == "test/accuracy"


@pytest.mark.parametrize(
    ("other_records", "reason"),
    [
        ([{"epoch": 1.0, "validation/accuracy": 3.0}], "no record of binary"),
        (records("ab", [1.0]), "exactly one"),
        (records("", [1.0]), "exactly one"),
        (records("a", [1.0]) + records("b", [1.0]), "exactly one"),
    ],
)
def test_other_runs_are_refused(other_records, reason):
    with pytest.raises(ValueError, match=reason):
        read_sensitivity(other_records)
