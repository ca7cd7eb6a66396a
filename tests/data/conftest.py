"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from altprop.data.base import LoadContext


@pytest.fixture
def context(tmp_path: Path) -> LoadContext:
    return LoadContext(root=tmp_path, device=torch.device("cpu"), seed=3)
