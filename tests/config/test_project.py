"""Configuration folders of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from altprop import names
from altprop.config import project
from altprop.problems import ConfigError

Announce = Callable[[str], None]


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Announce]:
    """Announces a folder of ``mypackage``, which raises if it is imported."""
    (tmp_path / "mypackage" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "mypackage" / "__init__.py").write_text("raise RuntimeError('it was imported')\n")
    (tmp_path / "mypackage" / "conf" / "model" / "mine.yaml").write_text("_target_: altprop.models.MLP\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(value: str) -> None:
        point = EntryPoint("mine", value, names.ENTRY_POINTS)
        monkeypatch.setattr(names, "entry_points", lambda group: [point] if group == names.ENTRY_POINTS else [])
        project.own_packages.cache_clear()

    yield call
    project.own_packages.cache_clear()


def test_a_package_is_found_without_importing_it(announce: Announce, tmp_path: Path) -> None:
    announce("mypackage.conf")
    assert project.own_packages() == (project.OwnPackage("mine", "mypackage", tmp_path / "mypackage" / "conf"),)
    assert "mine" in [file.stem for file in project.config_files("model")]
    assert "mlp" in [file.stem for file in project.config_files("model")]


@pytest.mark.parametrize("value", ["mypackage.cnof", "not_installed.conf"])
def test_a_folder_that_does_not_exist_is_refused(value: str, announce: Announce) -> None:
    announce(value)
    with pytest.raises(ConfigError, match=f"the entry point mine names '{value}'"):
        project.own_packages()


def test_a_file_that_altprop_has_too_is_refused(announce: Announce, tmp_path: Path) -> None:
    (tmp_path / "mypackage" / "conf" / "model" / "mlp.yaml").touch()
    announce("mypackage.conf")
    with pytest.raises(ConfigError, match=r"model/mlp\.yaml of mine would never be read"):
        project.own_packages()
