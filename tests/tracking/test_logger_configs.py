"""Every file of the config group ``logger`` builds its trackers, and lists all of their options."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from altprop.tracking.base import Tracker
from altprop.tracking.console import Console

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "logger").glob("*.yaml"))


def node(name: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(f"logger/{name}"), resolve=True)["logger"]


@pytest.mark.parametrize("name", NAMES)
def test_builds(name):
    trackers = {key: instantiate(config) for key, config in node(name).items()}
    assert all(isinstance(tracker, Tracker) for tracker in trackers.values())
    assert isinstance(trackers["console"], Console)
    assert name in trackers or name == "all"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("all", "console")])
def test_lists_every_option_with_its_default(name):
    config = node(name)[name]
    parameters = inspect.signature(type(instantiate(config))).parameters
    assert {key: value for key, value in config.items() if key != "_target_"} == {
        key: parameter.default for key, parameter in parameters.items()
    }


def test_the_choice_all_has_every_logger():
    assert set(node("all")) == {name for name in NAMES if name != "all"}
