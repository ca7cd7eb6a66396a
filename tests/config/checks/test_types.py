import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from pydantic import AllowInfNan
from torch import Tensor, nn

from altprop.config.checks.descriptions import choices_of, readable
from altprop.config.checks.targets import Signature
from altprop.config.checks.types import argument_errors
from altprop.config.plain import UNRESOLVED
from altprop.data.validation import Validation
from altprop.ranges import FilePath, KernelSize, PositiveFloat, PositiveInt, PositiveShare, Share, Sparsity, Table, Text


def signature(*, open_ended: bool = False, **hints: Any) -> Signature:
    """Required arguments with these type hints."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return Signature({name: inspect.Parameter(name, keyword, annotation=hint) for name, hint in hints.items()}, open_ended)


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
        (float("inf"), Annotated[float, AllowInfNan(True)]),
        (0.5, Annotated[float, Gt(0)] | None),
        ([1, "pool"], Sequence[PositiveInt | Literal["pool"]]),
        (3, KernelSize),
        (UNRESOLVED, int),
        ([{"_target_": "a.B"}], Sequence[int]),
        ("anything", Any),
        ("anything", inspect.Parameter.empty),
        ("anything", "a hint that pydantic cannot express"),
    ],
)
def test_valid_values(value: Any, hint: Any) -> None:
    assert argument_errors(signature(value=hint), {"value": value}) == {}


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
        (float("inf"), float),
        (float("nan"), Any),
        ([1.0, float("nan")], Sequence[float]),
        ({"a": float("-inf")}, inspect.Parameter.empty),
        (2**63, int),
        (1e39, float),
        (0, PositiveInt),
        ([0], Sequence[PositiveInt]),
        (4, KernelSize),
        (1.0, Share),
        ({"conv": -0.1}, Sparsity),
        ([[0, 1.0, 2.0]], Table),
        ({"_target_": "torch.nn.ReLU"}, Mapping[str, float] | None),
        ({"_target_": "torch.nn.ReLU"}, Literal["a", "b"]),
        ("", FilePath),
        ("two\nlines", Text),
    ],
)
def test_values_of_the_wrong_type(value: Any, hint: Any) -> None:
    assert argument_errors(signature(value=hint), {"value": value}) == {"value": "type"}


def test_unknown_and_missing_arguments() -> None:
    arguments = signature(copy=int, _private=Validation)  # names that pydantic does not allow for fields
    assert argument_errors(arguments, {"copi": 3, "_private": {"size": "many"}}) == {
        "copi": "unknown",
        "copy": "missing",
        "_private": "type",
    }
    assert argument_errors(signature(open_ended=True, copy=int), {"copi": 3, "copy": 3}) == {}


def test_hints_are_described_in_words() -> None:
    assert readable(int | None) == "a whole number or null"
    assert readable(Sequence[int]) == "a list of whole numbers"
    assert readable(tuple[float, float]) == "a list of 2: a number, a number"
    assert readable(PositiveInt | None) == "a whole number of at least 1, or null"
    assert readable(PositiveInt, 10**10) == "a whole number from 1 to 1000000000"
    assert readable(KernelSize) == "an odd whole number from 1 to 1023"
    assert readable(PositiveFloat | Tensor) == "a number above 0"
    assert readable(PositiveShare) == "a number above 0 and at most 1"
    assert readable(Sequence[PositiveInt | Literal["pool"]]) == "a list of whole numbers of at least 1 or pool"
    assert readable(FilePath | None) == "a path or null"
    assert readable(Mapping[int, float]) == "a mapping from a whole number to a number"
    assert readable(Literal["a", "b"] | None) == "a | b or null"
    assert choices_of(Literal["a", "b"] | None) == ["a", "b"]
