"""What shares a slow fixture or a cluster has to stay on one worker of pytest-xdist."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there are no workers")
@pytest.mark.xdist_group("shared")
def test_groups_reach_the_scheduler(request: pytest.FixtureRequest) -> None:
    """pytest-xdist tells its scheduler the group at the end of a test's id; pytest 9.2 drops what is written there."""
    assert request.node.nodeid.endswith("@shared")
