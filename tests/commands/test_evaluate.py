from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from altprop.commands import evaluate
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.config.plain import to_plain
from altprop.config.restore import find_run
from altprop.problems import ConfigError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run directory with a configuration that reads its data from ``/where/the/run/read``."""
    config, _ = to_plain(compose(["paths.data=/where/the/run/read", f"paths.outputs={tmp_path}"]))
    folder = tmp_path / config["name"] / run_key(config)
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    return folder


def options(directory: Path) -> dict[str, Any]:
    choices = {"split": "test", "checkpoint": "auto", "device": "cpu", "threads": None}
    paths = {"data": "/default/of/the/command", "outputs": str(directory.parents[1])}
    return {"run": str(directory), "trust_run": False, "paths": paths, **choices}


@pytest.mark.parametrize(
    ("overrides", "expected"), [([], "/where/the/run/read"), (["paths.data"], "/default/of/the/command")], ids=["own", "given"]
)
def test_data_are_read_from_where_the_run_read_them(
    directory: Path, overrides: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "overridden_keys", lambda: overrides)
    stored = evaluate._stored(options(directory))
    assert stored["paths"]["data"] == expected


def test_a_run_is_named_by_its_path_its_name_or_its_key(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = directory.parents[1]
    for text in (str(directory), f"{directory.parent.name}/{directory.name}", directory.name):
        assert find_run(text, outputs) == directory
    assert find_run("nothing", outputs) == Path("nothing").resolve()
    (outputs / "other" / directory.name).mkdir(parents=True)
    (outputs / "other" / directory.name / "config.yaml").touch()
    with pytest.raises(ConfigError, match=f"several runs have the key {directory.name}"):
        find_run(directory.name, outputs)
