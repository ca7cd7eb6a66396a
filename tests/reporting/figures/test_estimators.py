"""The figure of the estimators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from altprop.nn.estimators.rules import RULES
from altprop.reporting.figures.estimators import SIGN, default_estimator, draw_estimators
from tests.reporting.fixtures import PNG

CONF = Path(__file__).parents[3] / "conf" / "algorithm" / "estimator"


@pytest.mark.parametrize("name", RULES)
def test_drawn_estimator_is_the_configured_one(name: str) -> None:
    inputs, targets = torch.linspace(-3, 3, 13), torch.ones(13)
    built = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    assert torch.equal(default_estimator(name).weight(inputs, targets, SIGN), built.weight(inputs, targets, SIGN))


def test_figure_is_drawn(tmp_path: Path) -> None:
    path = draw_estimators(tmp_path / "estimators.png")
    assert path.read_bytes().startswith(PNG)
