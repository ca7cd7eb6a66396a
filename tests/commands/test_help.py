import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from altprop.commands.messages.help import GROUPS, MAX_LINES, WIDTH, help_page
from altprop.config.project import CONF, ROOT
from tests.config.catalog import folders

NOT_LISTED = ("defaults", "hydra", "seed", "threads", "limit_batches")
STORED = ROOT / "tests" / "commands" / "help.txt"
REFRESH = "python train.py --help > tests/commands/help.txt"


def frame(page: str) -> str:
    """``page`` without the lists of choices, experiments and sweeps, which follow the files of the configuration folder."""
    lines, in_rows = [], False
    for line in page.splitlines():
        if not line.startswith(" "):
            in_rows = line.startswith(("groups:", "experiments:", "sweeps:"))
        if not in_rows or not line.startswith(" "):
            lines.append(line)
    return "\n".join(lines)


def test_the_page_is_the_stored_one_but_for_its_lists() -> None:
    assert frame(help_page("train")) == frame(STORED.read_text()), f"if the change is intended: {REFRESH}"


def test_the_lists_are_those_of_the_configuration_folder() -> None:
    _, _, rows = help_page("train").partition("groups: <group>=<choice>\n")
    for group in GROUPS:
        choices = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        row = re.search(rf"^  {group} +(.*(?:\n {{23}}.*)*)", rows, re.MULTILINE)
        assert row is not None, group
        listed = " ".join(row[1].split()).split(", ")
        left_out = 0 if listed[-1] in choices else int(listed.pop().removeprefix("… ").removesuffix(" more"))
        assert listed == choices[: len(listed)]
        assert len(listed) + left_out == len(choices)


def test_the_page_fits_one_screen() -> None:
    lines = help_page("train").splitlines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= 120


def test_a_page_with_too_much_to_list_shortens_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    full = help_page("train")
    monkeypatch.setattr("altprop.commands.messages.help.MAX_LINES", len(full.splitlines()) - 1)
    assert len(help_page("train").splitlines()) < len(full.splitlines())


def test_three_commands_come_first() -> None:
    lines = help_page("train").splitlines()
    assert [line.split("  ")[1] for line in lines[2:5]] == [
        "python train.py",
        "python train.py experiment=<paper>/<row> [key=value]",
        "python train.py -m sweep=<paper>/<table>",
    ]


def test_every_paper_is_listed() -> None:
    _, _, listed = help_page("train").partition("experiments:")
    assert all(f"  {paper} " in listed for paper in folders())


def test_the_script_prints_it(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{help_page('train')}\n", "")
    assert all(len(line) <= WIDTH + 2 for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", ["evaluate", "report", "data", "status"])
def test_every_command_has_a_page_with_all_its_keys(command) -> None:
    page = help_page(command)
    keys = [key for key in OmegaConf.load(CONF / f"{command}.yaml") if key not in NOT_LISTED]
    assert f"python {command}.py" in page
    assert [key for key in keys if f"\n{key} " not in page] == []
