from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor, nn

from altprop.config.checks.types import choices_of, fits, readable
from altprop.config.plain import UNRESOLVED
from altprop.data.validation import Validation


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (0.5, float),
        (0.1, float | Tensor),
        ([0.9, 0.999], tuple[float, float]),
        ([3, 4], Sequence[int]),
        ([5, 8], Iterable[int]),
        ({0: 0.1, 5: 0.01}, Mapping[int, float]),
        ("a", Literal["a", "b"]),
        (None, int | None),
        ("data", Path),
        (float("inf"), float),
        (UNRESOLVED, int),
        ([{"_target_": "a.B"}], Sequence[int]),
        ("anything", Any),
    ],
)
def test_fits(value: Any, hint: Any) -> None:
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("3", int),
        (1.5, int),
        (True, int),
        (True, float),
        (1, bool),
        ("0.1", float | Tensor),
        ([0.9], tuple[float, float]),
        (3, Sequence[int]),
        ([3, "x"], Sequence[int]),
        ([5, "x"], Iterable[int]),
        ({"a": 0.1}, Mapping[int, float]),
        ("c", Literal["a", "b"]),
        (None, int),
        ("relu", Callable[[], nn.Module]),
        ("relu", nn.Module | None),
        (500, Validation),
    ],
)
def test_does_not_fit(value: Any, hint: Any) -> None:
    assert not fits(value, hint)


def test_hints_in_words() -> None:
    assert readable(int | None) == "a whole number or null"
    assert readable(Sequence[int]) == "a list of whole numbers"
    assert readable(tuple[float, float]) == "a list of 2: a number, a number"
    assert readable(Mapping[int, float]) == "a mapping from a whole number to a number"
    assert readable(Literal["a", "b"] | None) == "a | b or null"
    assert choices_of(Literal["a", "b"] | None) == ["a", "b"]
