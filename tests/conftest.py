"""One torch thread per test process: pytest-xdist already fills the cores, and results do not depend on their number."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hydra.core.hydra_config import HydraConfig

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WANDB_MODE", "offline")


def pytest_collection_finish() -> None:
    """Leave the imported modules and collected tests out of garbage collections, which took a quarter of composing's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


@pytest.fixture(autouse=True)
def _no_command_line_of_an_earlier_test() -> Iterator[None]:
    """Commands that a test calls in this process leave their command line in Hydra."""
    yield
    HydraConfig.instance().cfg = None
