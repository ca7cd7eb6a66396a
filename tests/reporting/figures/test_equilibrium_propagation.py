"""Figures of equilibrium propagation are drawn from all kinds of data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from altprop.reporting.figures.equilibrium_propagation import (
    draw_activity,
    draw_angles,
    draw_bias_bars,
    draw_convergence,
    draw_series,
)
from tests.reporting.fixtures import PNG


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_series(tmp_path: Path, opposite: bool, zero: bool) -> None:
    forward, backward, other = (torch.randn(6, 4, 3) for _ in range(3))
    backward = torch.zeros_like(backward) if zero else backward
    path = draw_series("layers.0.weight", forward, backward, tmp_path / "a.png", opposite=other if opposite else None)
    assert is_png(path)


def test_bars_activity_convergence_and_angles(tmp_path: Path) -> None:
    ratios = {"layers.0.weight": 0.3, "layers.1.weight": 1.4, "feedback.0.weight": 0.0}
    assert is_png(draw_bias_bars(ratios, tmp_path / "bars.png"))
    states = [torch.rand(4, 3, 2, 2), torch.zeros(4, 5)]
    assert is_png(draw_activity(states, tmp_path / "activity.png"))
    changes = torch.tensor([[1.0, 0.5], [0.1, 0.0], [0.0, 0.0]])
    phases = {"free": changes, "nudged": torch.zeros(2, 2)}
    assert is_png(draw_convergence(phases, tmp_path / "convergence.png", converged=1e-4))
    assert is_png(draw_angles([1, 2], {"feedback.0": [90.0, 80.0]}, tmp_path / "angles.png"))
