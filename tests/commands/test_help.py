import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from altprop.commands.messages.help import WIDTH, help_page
from altprop.config.project import CONF, ROOT
from tests.config.catalog import folders

NOT_LISTED = ("defaults", "hydra", "seed", "threads", "limit_batches")
STORED = ROOT / "tests" / "commands" / "help.txt"
REFRESH = "python train.py --help > tests/commands/help.txt"


def test_the_page_is_the_stored_one() -> None:
    assert f"{help_page('train')}\n" == STORED.read_text(), f"if the change is intended: {REFRESH}"


def test_the_page_fits_one_screen() -> None:
    lines = STORED.read_text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_three_commands_come_first() -> None:
    lines = STORED.read_text().splitlines()
    assert [line.split("  ")[1] for line in lines[2:5]] == [
        "python train.py",
        "python train.py experiment=<paper>/<row> [key=value]",
        "python train.py -m sweep=<paper>/<table>",
    ]


def test_every_paper_is_listed() -> None:
    page = STORED.read_text()
    _, _, listed = page.partition("experiments:")
    assert all(f"  {paper} " in listed for paper in folders())


def test_the_script_prints_it(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, STORED.read_text(), "")
    assert all(len(line) <= WIDTH + 2 for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", ["evaluate", "report", "data", "status"])
def test_every_command_has_a_page_with_all_its_keys(command) -> None:
    page = help_page(command)
    keys = [key for key in OmegaConf.load(CONF / f"{command}.yaml") if key not in NOT_LISTED]
    assert f"python {command}.py" in page
    assert [key for key in keys if f"\n{key} " not in page] == []
