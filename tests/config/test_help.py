import subprocess
import sys

import pytest

from altprop.config.help import WIDTH, help_page, help_text
from altprop.config.project import ROOT, register_resolvers
from tests.config.catalogue import folders

STORED = ROOT / "tests" / "config" / "help.txt"
REFRESH = "python train.py --help > tests/config/help.txt"


@pytest.fixture(autouse=True)
def resolvers() -> None:
    """As an entry point registers them at its import."""
    register_resolvers()


def test_the_page_is_the_stored_one() -> None:
    assert f"{help_page('train')}\n" == STORED.read_text(), f"if the change is meant: {REFRESH}"


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


def test_hydras_own_way_gives_the_same_text() -> None:
    assert help_text().replace("$$", "$") == help_page("train")


def test_the_script_prints_it(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, STORED.read_text(), "")
    assert all(len(line) <= WIDTH + 2 for line in done.stdout.splitlines())


def test_a_page_that_only_hydra_can_write_is_left_to_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("altprop.config.help.CONF", tmp_path)
    (tmp_path / "hydra" / "help").mkdir(parents=True)
    (tmp_path / "other.yaml").write_text("defaults:\n  - override hydra/help: page\n")
    page = tmp_path / "hydra" / "help" / "page.yaml"
    page.write_text("template: 'costs $$3 in ${.header}'\nheader: all\n")
    assert help_page("other") == "costs $3 in all"
    page.write_text("template: 'groups $APP_CONFIG_GROUPS'\n")
    assert help_page("other") is None
    assert help_page("absent") is None
