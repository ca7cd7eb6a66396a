"""The runs that several tests of reports share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.fixtures import write_run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A row with three finished seeds, one failed and one running; and a row of another experiment."""
    cost = {"flops": 15_000_000_000, "peak_memory": {"bytes": 1_500_000_000, "of": "process"}}
    write_run(tmp_path, "a/row", "00000000000a", [80.0, 92.0, 90.0], seed=0, parameters=12345, **cost)
    write_run(tmp_path, "a/row", "00000000000b", [82.0, 90.0, 91.0], seed=1, command=["seed=1", "trainer.duration=3ep"])
    write_run(tmp_path, "a/row", "00000000000c", [84.0, 91.0, 92.0], seed=2)
    write_run(tmp_path, "a/row", "00000000000d", [70.0], seed=3, status="failed", error="RunFailed: out of memory")
    write_run(tmp_path, "a/row", "00000000000e", [71.0, 99.0], seed=4, status="running")
    write_run(tmp_path, "b/under_score", "00000000000f", [50.0, 60.0, 55.0], config={"paper": None})
    (tmp_path / "latest").symlink_to("a/row/00000000000a")
    return tmp_path
