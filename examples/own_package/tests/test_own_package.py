"""The suites of altprop on the algorithm and the weights rule of this package, and one run of its experiment."""

from functools import partial
from pathlib import Path

import pytest
import torch
from own_package.algorithm import WeightPerturbation
from own_package.metrics import margin
from own_package.model import PooledMLP
from own_package.weights import TernaryWeights, ternary
from torch import nn

import altprop
from altprop.testing import AlgorithmSuite, Case, WeightsRuleSuite

SMALL = partial(PooledMLP, size=2, hidden=8, units=nn.ReLU)


class TestWeightPerturbation(AlgorithmSuite):
    cases = {"weight_perturbation": Case(lambda weights: WeightPerturbation(directions=8, weights=weights), SMALL)}


class TestTernaryWeights(WeightsRuleSuite):
    rules = {"ternary": TernaryWeights}


def test_ternary_weights_have_three_values() -> None:
    weight = torch.tensor([[-3.0, -0.1, 0.2], [1.0, 0.0, 2.0]])
    torch.testing.assert_close(ternary(weight, 0.7), torch.tensor([[-2.0, 0.0, 0.0], [2.0, 0.0, 2.0]]))


def test_margin() -> None:
    scores, targets = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 2.5]]), torch.tensor([0, 2])
    assert margin(scores, targets).tolist() == [2.0, -0.5]


def test_the_experiment_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = altprop.train("experiment=own/gratings", "trainer.figures=false")
    assert run.metrics[-1]["test/accuracy"] >= 90
    assert run.metrics[-1]["test/margin"] > 0
    assert altprop.validate("experiment=own/gratings", "algorithm/weights=ternary", "algorithm=backprop") == []


def test_another_run_starts_from_the_ternary_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ("experiment=own/gratings", "algorithm=backprop", "trainer.duration=1ep", "trainer.figures=false")
    source = altprop.train(*short, "algorithm/weights=ternary")
    run = altprop.train(*short, f"model.weights_from={source.directory}", "trainer.evaluate_first=true")
    assert run.metrics[0]["test/loss"] == pytest.approx(source.metrics[-1]["test/loss"], rel=1e-5)
