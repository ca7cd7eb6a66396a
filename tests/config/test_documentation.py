"""The commands in docs/configuration.md are valid."""

import re
import shlex

import pytest

from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.config.project import ROOT

TEXT = (ROOT / "docs" / "configuration.md").read_text()
OVERRIDES = [
    "trainer.duration=3ep",
    "+optimizer.fused=true",
    "trainer.clip_norm=null",
    "trainer.early_stopping='{metric: validation/loss, patience: 3}' dataset.validation.size=500",
    "optimizer=other optimizer._target_=torch.optim.NAdam +optimizer.lr=0.002",
    "schedule=other schedule.scheduler._target_=torch.optim.lr_scheduler.StepLR +schedule.scheduler.step_size=3",
    "trainer.select_on=test",
]


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_overrides_on_the_page_are_valid(overrides: str) -> None:
    page = " ".join(TEXT.split())
    assert overrides.removesuffix(" dataset.validation.size=500") in page
    assert problems_of(compose(shlex.split(overrides))) == []


def test_the_example_of_mistakes_is_printed_literally(monkeypatch, capsys) -> None:
    match = re.search(r"```\n\$ python train\.py (.*)\n((?:.*\n)+?)```", TEXT)
    assert match is not None
    from altprop.commands.entry import entry_point
    from altprop.commands.train import check_task

    monkeypatch.setattr("sys.argv", ["train.py", *shlex.split(match[1])])
    with pytest.raises(SystemExit):
        entry_point("train", print, check_task)
    assert capsys.readouterr().err == match[2]
