"""Feedback alignment: with the weights as feedback it is backprop; the modes; convolutions and residual networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop.algorithms.feedback.alignment import FeedbackAlignment
from altprop.algorithms.feedback.paths import forward_with_feedback
from altprop.models.cifar_resnet import CifarResNet
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.sparse.static import StaticSparse
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training

PLAIN = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.ReLU)
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": partial(MLP, hidden=(16, 12), units=nn.ReLU),
    "convnet": partial(ConvNet, channels=(4, "pool", 6), hidden=(8,), units=nn.Tanh),
    "resnet": partial(CifarResNet, depth=8, units=nn.ReLU),
}
SIGN_MODES = ("uniform_sign", "batchwise_random_sign", "fixed_random_sign")


def training(model: Callable[..., nn.Module], mode: Any = "random", rule: WeightsRule | None = None, **context: Any) -> Training:
    case = Case(lambda weights: FeedbackAlignment(mode=mode, weights=weights), model)
    return Training(case, rule, dtype=torch.float64, **context)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(10, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(10) % 4


@pytest.mark.parametrize("rule", [Dense, partial(StaticSparse, sparsity=0.5), partial(Binary, scale="channel")])
@pytest.mark.parametrize("model", MODELS)
def test_with_the_weights_as_feedback_it_is_backprop(model: str, rule: Any, batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(MODELS[model], rule=rule()).algorithm
    expected = algorithm.reference_gradient(*batch)
    assert isinstance(algorithm, FeedbackAlignment)
    algorithm.feedback = lambda number, weight: weight  # type: ignore[method-assign]
    algorithm.update(*batch)
    for name, parameter in algorithm.model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-10, atol=1e-13), name


@pytest.mark.parametrize("model", MODELS)
def test_without_it_only_the_last_layer_has_its_exact_gradient(model: str, batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(MODELS[model]).algorithm
    expected = algorithm.reference_gradient(*batch)
    assert isinstance(algorithm, FeedbackAlignment)
    algorithm.update(*batch)
    exact = [
        torch.allclose(layer.weight.grad, expected[f"{name}.weight"], rtol=1e-10, atol=1e-13)
        for name, layer in algorithm.model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    assert exact == [False] * (len(exact) - 1) + [True]


def test_hidden_layers_follow_the_published_rule(batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(PLAIN).algorithm
    inputs, targets = batch
    first, second, last = algorithm.layers  # type: ignore[attr-defined]
    x = inputs.flatten(1)
    a1 = functional.linear(x, first.weight, first.bias).detach()
    a2 = functional.linear(a1.relu(), second.weight, second.bias).detach()
    error = (functional.linear(a2.relu(), last.weight, last.bias).softmax(dim=1) - functional.one_hot(targets, 4)).detach()
    delta2 = (error / len(targets) @ algorithm.magnitudes[2]) * (a2 > 0)  # type: ignore[attr-defined]
    delta1 = (delta2 @ algorithm.magnitudes[1]) * (a1 > 0)  # type: ignore[attr-defined]
    algorithm.update(inputs, targets)
    assert torch.allclose(second.weight.grad, delta2.T @ a1.relu(), rtol=1e-12, atol=1e-14)
    assert torch.allclose(first.weight.grad, delta1.T @ x, rtol=1e-12, atol=1e-14)
    assert torch.allclose(first.bias.grad, delta1.sum(dim=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 5), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv2d(4, 6, (3, 1), bias=False, dilation=(2, 1))],
    ids=str,
)
def test_feedback_only_changes_the_gradient_of_the_inputs(layer: nn.Linear | nn.Conv2d) -> None:
    layer = layer.double()
    shape = (3, 6) if isinstance(layer, nn.Linear) else (3, 4, 8, 8)
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    feedback = torch.randn_like(layer.weight)
    output = forward_with_feedback(layer, inputs, feedback)
    assert torch.equal(output, layer(inputs))
    direction = torch.randn_like(output)
    parameters = list(layer.parameters())
    got = torch.autograd.grad(output, [inputs, *parameters], direction)
    expected = torch.autograd.grad(layer(inputs.detach()), parameters, direction)
    weight = layer.weight.detach().clone()
    layer.weight.data.copy_(feedback)
    through_feedback = torch.autograd.grad(layer(inputs), inputs, direction)
    layer.weight.data.copy_(weight)
    for one, other in zip(got, (*through_feedback, *expected), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", SIGN_MODES)
def test_sign_concordant_feedback_has_the_sign_of_every_current_weight(mode: str, model: str) -> None:
    run = training(MODELS[model], mode, StaticSparse(sparsity=0.5)).run(4)
    for number, layer in enumerate(run.algorithm.layers):  # type: ignore[attr-defined]
        weight = layer.weight.detach()
        feedback = run.algorithm.feedback(number, weight)  # type: ignore[attr-defined]
        assert torch.equal(feedback.sign(), weight.sign())


@pytest.mark.parametrize(
    ("mode", "is_fixed"),
    [("random", True), ("fixed_random_sign", True), ("uniform_sign", True), ("batchwise_random_sign", False)],
)
def test_what_is_fixed_and_what_is_drawn_again(mode: str, is_fixed: bool, batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(PLAIN, mode).algorithm
    assert isinstance(algorithm, FeedbackAlignment)
    ones, steps = [torch.ones_like(layer.weight) for layer in algorithm.layers], []
    for _ in range(2):
        algorithm.update(*batch)
        steps.append([algorithm.feedback(number, one) for number, one in enumerate(ones)])
        again = [algorithm.feedback(number, one) for number, one in enumerate(ones)]
        assert all(torch.equal(one, other) for one, other in zip(steps[-1], again, strict=True))  # one draw in a mini-batch
    for old, new in zip(*steps, strict=True):
        assert torch.equal(old, new) == is_fixed
        assert (len(new.unique()) == 1) == (mode == "uniform_sign")


def test_a_step_draws_no_feedback_for_the_first_layer(batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(PLAIN, "batchwise_random_sign").algorithm
    assert isinstance(algorithm, FeedbackAlignment)
    generator = torch.Generator()
    generator.set_state(algorithm.context.generator("feedback").get_state())
    algorithm.update(*batch)
    for number, layer in list(enumerate(algorithm.layers))[1:]:
        expected = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64).mul_(algorithm.scales[number]).abs_()
        assert torch.equal(algorithm.feedback(number, torch.ones_like(layer.weight)), expected)
    assert torch.equal(generator.get_state(), algorithm.context.generator("feedback").get_state())


def test_feedback_is_as_large_as_the_initial_weights() -> None:
    algorithm = training(partial(MLP, hidden=(300, 200), units=nn.ReLU)).algorithm
    for layer, feedback in zip(algorithm.layers, algorithm.magnitudes, strict=True):  # type: ignore[attr-defined]
        ratio = feedback.square().mean() / layer.weight.detach().square().mean()
        assert 0.8 < float(ratio) < 1.2


def test_outside_of_a_step_the_model_is_an_ordinary_one(batch: tuple[Tensor, Tensor]) -> None:
    algorithm = training(PLAIN).algorithm
    algorithm.update(*batch)
    assert all("forward" not in layer.__dict__ for layer in algorithm.layers)  # type: ignore[attr-defined]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.mode.*uniform_sign"):
        FeedbackAlignment(mode="sign")  # type: ignore[arg-type]
