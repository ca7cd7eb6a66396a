"""Root keys that nothing refers to are refused with the nearest key; keys of one's own that are used are fine."""

from __future__ import annotations

import pytest

from altprop.config.checks.unused import problems_of_command
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("+epochs=3", "trainer.duration=3ep"),
        ("+max_epoch=3", "trainer.duration=3ep"),
        ("+sede=1", "seed=1"),
        ("+lr=0.1", "optimizer.lr=0.1"),
        ("+batch_size=50", "dataset.batch_size=50"),
        ("+ckpt_path=x", "run=outputs/<name>/<key>"),
        ("+weights_from=/nowhere", "model.weights_from=/nowhere"),
        ("+width=24", ""),
        ("+my.width=24", ""),
    ],
)
def test_a_root_key_that_nothing_refers_to(override: str, fix: str) -> None:
    [problem] = problems_of(compose([override]))
    assert problem.key == override[1:].partition("=")[0].partition(".")[0]
    assert problem.description == "nothing refers to this key"
    assert problem.fix == fix


@pytest.mark.parametrize(
    "overrides",
    [
        ["+width=24", "model.hidden=[${width}]"],
        ["+my.width=24", "model.hidden=[${my.width}]"],
        ["+width=24", "model.hidden=['${oc.select:width,3}']"],
        ["+width=24", "+half=${width}", "model.hidden=[${half}]"],
    ],
)
def test_a_root_key_that_a_value_refers_to(overrides: list[str]) -> None:
    assert problems_of(compose(overrides)) == []


def test_no_folder_is_called_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    [problem] = problems_of(compose(["paths.outputs='~/x y'"]))
    assert str(problem) == "paths.outputs: ~/x y would be in a folder called ~; a path without ~; try: paths.outputs=/home/me/x y"


@pytest.mark.parametrize(
    ("command", "override", "line"),
    [
        ("report", "+metrc=x", "metrc: nothing refers to this key; keys: runs, group, metric, "),
        ("status", "+gruop=x", "try: group=x"),
        ("data", "+actoin=list", "try: action=list"),
        ("evaluate", "+checkpiont=best", "try: checkpoint=best"),
        ("report", "to='~/x'", "to: ~/x would be in a folder called ~"),
        ("report", "columns=${nothing}", "columns: '${nothing}' cannot be resolved"),
        ("report", "compare=worst", "compare: worst does not fit; it must be last | selected | best"),
        ("status", "every=nan", "every: nan does not fit; it must be a number from 0 to 1000000"),
        ("data", "seed=-1", "seed: -1 does not fit; it must be a whole number of at least 0; try: seed=0"),
        ("evaluate", "threads=0", "threads: 0 does not fit; it must be a whole number from 1 to 1024, or null"),
    ],
)
def test_the_other_commands_refuse_them_too(command: str, override: str, line: str) -> None:
    [problem] = problems_of_command(compose([override], command), command)
    assert line in str(problem)
    assert problems_of_command(compose([], command), command) == []
