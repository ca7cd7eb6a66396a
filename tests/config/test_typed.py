"""What is shown as typed is read back by Hydra's grammar as the same value."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.config.plain import UNRESOLVED
from altprop.config.typed import as_typed

PARSER = OverridesParser.create()
TEXTS = st.text(st.sampled_from("ab01 .=,(#'\"[]{}é~/\\:$-+*%@|?;&!<>`^e_"), max_size=6) | st.sampled_from(
    ["null", "True", "1e-3", "1_0", "nan", "-inf", "it's", "a\\'b", "${seed}"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=2),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_is_typed_is_read_back(value: object) -> None:
    override = PARSER.parse_override(f"key={as_typed(value)}")
    assert not override.is_sweep_override()
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("relu", "relu"),
        ("/data/my set", "/data/my set"),
        ("0.01", "'0.01'"),
        ("null", "'null'"),
        ("a=b", "'a=b'"),
        ("it's", '"it\'s"'),
        ((0.9, 0.999), "[0.9,0.999]"),
        ({"lr": 0.01, "on": True}, "{lr:0.01,on:true}"),
        (UNRESOLVED, "…"),
    ],
)
def test_quotes_only_where_they_are_needed(value: object, text: str) -> None:
    assert as_typed(value) == text


def test_the_mark_of_what_cannot_be_resolved_is_never_printed_as_an_object() -> None:
    assert str(UNRESOLVED) == repr(UNRESOLVED) == f"{[UNRESOLVED]}"[1:-1] == "…"
