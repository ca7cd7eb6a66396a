"""Tests on a real SLURM: ``make slurm-up`` starts it (as root); without it they are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

SETTINGS = Path(os.environ.get("ALTPROP_SLURM", "/tmp/altprop-slurm")) / "slurm.conf"


@pytest.fixture(scope="session", autouse=True)
def slurm_is_up() -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("SLURM is not installed: make slurm-up (Debian, as root)")
    if "SLURM_CONF" not in os.environ and SETTINGS.exists():
        os.environ["SLURM_CONF"] = str(SETTINGS)
    if subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode:
        pytest.skip("SLURM does not answer: make slurm-up (as root)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Cancel what a failed test has left in the queue, so that the tests after it find a free machine."""
    report = yield
    if report.failed and item.path.parent == Path(__file__).parent:
        subprocess.run(["scancel", "--me"], capture_output=True, timeout=60)
    return report


@pytest.hookimpl(tryfirst=True)  # xdist looks at groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process of pytest-xdist takes all of them, since they share a cluster of two cores; queues may be long."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("slurm"))
            item.add_marker(pytest.mark.timeout(900))
