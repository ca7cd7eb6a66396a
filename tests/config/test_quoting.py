"""Any string survives Hydra's command line and OmegaConf unchanged."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from altprop.config.quoting import quoted, quoted_list

PARSER = OverridesParser.create()
AWKWARD = st.text(alphabet="ab\\${}'\",()[]= \n#:%", max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), AWKWARD, st.sampled_from(["null", "True", "1e3", "12", "", "nan"])))
def test_a_quoted_string_is_read_as_it_is(text: str) -> None:
    value = PARSER.parse_override(f"key={quoted(text)}").value()
    assert OmegaConf.create({"key": value}).key == text


@settings(max_examples=80, deadline=None)
@given(st.lists(AWKWARD, max_size=4))
def test_so_is_a_list(texts: list[str]) -> None:
    value = PARSER.parse_override(f"key={quoted_list(texts)}").value()
    assert list(OmegaConf.create({"key": value}).key) == texts
