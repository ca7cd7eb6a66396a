"""An override that Hydra cannot read gets Hydra's reason and a spelling that can be read."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from altprop.commands.messages.quoting import unreadable

PARSER = OverridesParser.create()
SPELLINGS = {
    "name=a=b": "\"name='a=b'\"",
    "name=a(b": "\"name='a(b'\"",
    "name=a#b": "\"name='a#b'\"",
    "name=it's": "'name=\"it'\"'\"'s\"'",
    "name=café": "\"name='café'\"",
    "name=a]": "\"name='a]'\"",
    "tags=[a=b,c]": "\"tags=['a=b',c]\"",
    "tags=[é,3]": "\"tags=['é',3]\"",
    "model.hidden=[16,32": "'model.hidden=[16,32]'",
    "model.hidden=[16],[16,": "'model.hidden=[16],[16]'",
    "model.hidden=[16]]": "'model.hidden=[16]'",
    "model.hidden=[16,{a": "",
    "model/units={relu": "",
    "model.hidden=[16,,32]": "'model.hidden=[16,32]'",
    "seed=range(3": "'seed=range(3)'",
    "seed=rang(3)": "'seed=range(3)'",
    "seed=0,1,": "seed=0,1",
    "optimizer={'lr': 0.01, 'amsgrad': None}": "'optimizer={lr:0.01,amsgrad:null}'",
    "optimizer.betas=(0.9,0.99)": "'optimizer.betas=[0.9,0.99]'",
    "optimizer.lr=choice(null,1.0)": "optimizer.lr=null,1.0",
    "optimizer.lr=${oc.decode:${oc.env:LR}}": "'optimizer.lr=\"${oc.decode:${oc.env:LR}}\"'",
    "seed=range(a)": "",
    "seed=choice()": "",
    "näme=3": "",
    "optimizer.lr = 3": "",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_the_answer_shows_the_spelling(text: str) -> None:
    assert unreadable(text).fix == SPELLINGS[text]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name=a=b", "mismatched input '=' expecting <EOF>"),
        ("name=a#b", "token recognition error at: '#'"),
        ("seed=range(a)", "mismatch type argument start: str is incompatible with Union[int, float]"),
        ("optimizer.lr=choice(null,1.0)", "NoneType is incompatible"),
    ],
)
def test_the_answer_has_the_reason_of_hydra(text: str, reason: str) -> None:
    assert reason in unreadable(text).description


def test_a_path_in_the_home_folder_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert unreadable("paths.outputs=~/x").fix == "paths.outputs=/home/me/x"


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("ab1 =,(#'\"[]{}é~\\$`!"), min_size=1, max_size=6))
def test_every_spelling_is_one_word_of_the_shell_that_can_be_read(value: str) -> None:
    fix = unreadable(f"name={value}").fix
    if fix:
        [word] = shlex.split(fix)
        PARSER.parse_override(word)
