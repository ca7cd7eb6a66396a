from collections.abc import Callable
from pathlib import Path

import pytest

from altprop.tracking.base import RunInfo


@pytest.fixture
def run_info(tmp_path: Path) -> Callable[..., RunInfo]:
    """A function that builds the RunInfo of a run of 4 epochs of 10 steps in ``tmp_path``."""

    def build(**changes: object) -> RunInfo:
        facts = {
            "key": "0a1b2c3d",
            "name": "ftprop/quick",
            "directory": tmp_path,
            "config": {"seed": 3, "model": {"_target_": "altprop.models.MLP", "sizes": [20, 10]}},
            "seed": 3,
            "total_epochs": 4,
            "steps_per_epoch": 10,
            "resumed": False,
            "group": "ftprop",
            "tags": ("a", "b"),
        }
        return RunInfo(**{**facts, **changes})

    return build
