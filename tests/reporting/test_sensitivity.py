from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.reporting.figures.binarization import draw_sensitivity, draw_timeline
from altprop.reporting.sensitivity import ascending_order, mean_accuracies, read_run

LAYERS = ("a", "b", "c")


def records(binary, values, metric="validation/accuracy"):
    flags = {f"weights/binary/{name}": float(name in binary) for name in LAYERS}
    return [
        {"epoch": epoch + 1.0, metric: value, "weights/binary_layers": len(binary), "weights/fully_binary": 0.0, **flags}
        for epoch, value in enumerate(values)
    ]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_least_sensitive_layer_first(values):
    order = ascending_order(values)
    assert sorted(order) == list(range(1, len(values) + 1))
    ranked = [values[place - 1] for place in order]
    assert ranked == sorted(values, reverse=True)
    for one, two in pairwise(order):
        assert values[one - 1] > values[two - 1] or one < two  # ties by forward order


def test_runs_are_read_and_averaged():
    runs = [read_run(records("b", values)) for values in ([90.0, 92.0, 91.0], [94.0, 80.0])]
    runs.append(read_run(records("a", [70.0])))
    assert [run.accuracy for run in runs] == [92.0, 94.0, 70.0]
    assert {run.binary for run in runs} == {"a", "b"}
    assert mean_accuracies(runs) == {"a": 70.0, "b": 93.0, "c": None}


def test_without_validation_the_test_split_counts():
    assert read_run(records("a", [70.0, 71.0], "test/accuracy")).metric == "test/accuracy"


@pytest.mark.parametrize(
    ("given_records", "said"),
    [
        ([{"epoch": 1.0, "validation/accuracy": 3.0}], "nothing about binary"),
        (records("ab", [1.0]), "exactly one"),
        (records("", [1.0]), "exactly one"),
        (records("a", [1.0]) + records("b", [1.0]), "exactly one"),
    ],
)
def test_other_runs_are_refused(given_records, said):
    with pytest.raises(ValueError, match=said):
        read_run(given_records)


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_bar_chart(tmp_path):
    path = tmp_path / "sensitivity.png"
    assert draw_sensitivity(LAYERS, [90.0, 95.0, 90.0], path, metric="validation/accuracy") == path
    assert is_png(path)


def test_timeline(tmp_path):
    path = tmp_path / "timeline.png"
    assert draw_timeline(records("a", [90.0, 91.0]), path) == path
    assert is_png(path)
    # Nothing to show, nothing drawn.
    other = tmp_path / "other.png"
    assert draw_timeline([{"epoch": 1.0, "test/accuracy": 3.0}], other) is None
    assert not other.exists()
