"""Predictive coding: where it is backprop, and that inference settles where it should."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.predictive_coding.algorithm import PredictiveCoding
from altprop.algorithms.predictive_coding.inference import errors_of, feed_forward, moved_values, predictions_of
from altprop.algorithms.replaying import dropout_options
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.models.cifar_resnet import CifarResNet
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": partial(MLP, hidden=(16, 12, 10), batch_norm=False, units=nn.Tanh),
    "convnet": partial(ConvNet, channels=(4, "pool", 6), hidden=(8,), units=nn.ReLU),
    "resnet": partial(CifarResNet, depth=8, units=nn.ReLU),
}
BACKPROP: dict[str, dict[str, Any]] = {
    "at equilibrium": {"fixed_prediction": True, "inference_steps": 150, "step_size": 0.4},
    "one step per block": {"fixed_prediction": True, "inference_steps": None, "step_size": 1.0},
    "well timed": {"timing": "well_timed", "inference_steps": None, "step_size": 1.0},
}


def gradients(model: Callable[..., nn.Module], **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradients of one step, and those of backprop."""
    case = Case(lambda weights: PredictiveCoding(weights=weights, **options), model)
    algorithm = Training(case, dtype=torch.float64).algorithm
    generator = torch.Generator().manual_seed(3)
    batch = torch.randn(10, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(10) % 4
    expected = algorithm.reference_gradient(*batch)
    algorithm.update(*batch)
    return {name: value.grad for name, value in algorithm.model.named_parameters() if value.grad is not None}, expected


@pytest.mark.parametrize("options", BACKPROP)
@pytest.mark.parametrize("model", MODELS)
def test_it_is_backprop(model: str, options: str) -> None:
    got, expected = gradients(MODELS[model], **BACKPROP[options])
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-8, atol=1e-11), name


@pytest.mark.parametrize(
    "options", [{}, {"timing": "well_timed", "inference_steps": None, "step_size": 0.5}, {"fixed_prediction": True}], ids=str
)
def test_in_general_it_is_not(options: dict[str, Any]) -> None:
    got, expected = gradients(MODELS["mlp"], **options)
    first = "features.0.linear.weight"
    assert not torch.allclose(got[first], expected[first], rtol=1e-3, atol=0)


def test_the_error_needs_one_step_per_block_to_reach_the_first() -> None:
    for steps, reached in ((1, {2}), (2, {1, 2}), (3, {0, 1, 2})):
        for fixed in (True, False):
            got, _ = gradients(MODELS["mlp"], inference_steps=steps, fixed_prediction=fixed)
            moved = {
                block for block in range(3) if float(got.get(f"features.{block}.linear.weight", torch.zeros(1)).norm()) > 1e-12
            }
            assert moved == reached


def test_inference_settles_at_the_minimum_of_the_energy() -> None:
    """A linear network with one hidden layer and the squared loss: the minimum and its gradients in closed form."""
    torch.manual_seed(0)
    first, last = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def loss(scores: Tensor) -> Tensor:
        return 0.5 * (scores - y).square().sum()

    predictions = feed_forward([first], last, x)
    for _ in range(400):
        values = moved_values(predictions, errors_of(predictions, loss), 0.2)
        predictions = predictions_of([first], last, x, values)
    with torch.no_grad():
        system = torch.eye(4, dtype=torch.float64) + last.weight.T @ last.weight
        expected = torch.linalg.solve(system, (first(x) + (y - last.bias) @ last.weight).T).T
        error = first(x) - expected
    assert torch.allclose(predictions.values[0], expected, rtol=1e-10, atol=1e-12)
    assert torch.allclose(errors_of(predictions, loss)[0], error, rtol=1e-8, atol=1e-12)


def test_inference_lowers_the_energy_in_every_step() -> None:
    torch.manual_seed(0)
    model = MODELS["mlp"](input_shape=(1, 8, 8), num_classes=4).double()
    x, targets = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 4

    def loss(scores: Tensor) -> Tensor:
        return nn.functional.cross_entropy(scores, targets, reduction="sum")

    predictions, energies = feed_forward(model.blocks, model.head, x), []
    for _ in range(30):
        errors = errors_of(predictions, loss)
        energies.append(float(loss(predictions.outputs[-1]).detach() + 0.5 * sum(error.square().sum() for error in errors[:-1])))
        predictions = predictions_of(model.blocks, model.head, x, moved_values(predictions, errors, 0.1))
    assert all(later < earlier for earlier, later in pairwise(energies))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timing": "well_timed"}, r"algorithm\.inference_steps"),
        ({"timing": "well_timed", "inference_steps": None, "fixed_prediction": True}, r"algorithm\.fixed_prediction"),
        ({"timing": "late"}, r"algorithm\.timing"),
        ({"step_size": 0.0}, r"algorithm\.step_size"),
        ({"inference_steps": 0}, r"algorithm\.inference_steps"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PredictiveCoding(**options)


@pytest.mark.parametrize("model", [["model=convnet8"], ["model=vgg11", "model.dropout=0.3"]])
def test_dropout_is_refused_in_validation(model: list[str]) -> None:
    overrides = ["algorithm=predictive_coding", *model]
    (problem,) = [problem for problem in problems_of(compose(overrides)) if problem.key == "model"]
    assert "dropout=" in problem.description
    for fix in (
        ["algorithm.fixed_prediction=true"],
        ["model.channel_dropout=0" if "convnet8" in model[0] else "model.dropout=0"],
    ):
        assert [each for each in problems_of(compose([*overrides, *fix])) if "dropout" in each.allowed] == []


def test_settings_that_give_dropout() -> None:
    dropout = {"_target_": "torch.nn.Dropout", "p": 0.1}
    assert dropout_options({"dropout": 0.5, "channel_dropout": 0.0, "units": dropout}) == ["dropout=0.5", "units=Dropout"]
    assert dropout_options({"units": {**dropout, "p": 0.0}, "hidden": [3]}) == []
