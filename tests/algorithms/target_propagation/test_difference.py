"""Difference target propagation: exact inverses give Gauss-Newton targets, and inverses are learned."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.target_propagation.difference import DifferenceTargetPropagation, InverseBlock, difference_targets
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training

WIDTH = 6


class SquareLayer(nn.Module):
    """An invertible layer: a square matrix, then leaky ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH).double()
        nn.init.orthogonal_(self.linear.weight)
        self.linear.weight.data += 0.3 * torch.randn(WIDTH, WIDTH, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.linear(inputs), 0.3)

    def inverse(self, outputs: Tensor) -> Tensor:
        drive = nn.functional.leaky_relu(outputs, 1 / 0.3)
        return torch.linalg.solve(self.linear.weight, (drive - self.linear.bias).T).T


@pytest.fixture
def layers() -> list[SquareLayer]:
    torch.manual_seed(1)
    return [SquareLayer() for _ in range(3)]


def chain(layers: list[SquareLayer], inputs: Tensor) -> list[Tensor]:
    outputs = [inputs]
    for layer in layers:
        outputs.append(layer(outputs[-1]))
    return [output.detach() for output in outputs]


def test_targets_with_exact_inverses_reproduce_the_top_target(layers: list[SquareLayer]) -> None:
    outputs = chain(layers, torch.randn(4, WIDTH, dtype=torch.float64))
    top = outputs[-1] + 0.5 * torch.randn(4, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        targets = difference_targets(outputs, [layer.inverse for layer in layers], top)
        for number in range(3):
            assert torch.allclose(chain(layers[number:], targets[number])[-1], top, rtol=1e-9, atol=1e-10)


def test_small_steps_with_exact_inverses_follow_gauss_newton(layers: list[SquareLayer]) -> None:
    """The change of a target is the Gauss-Newton step, computed from the Jacobian of the rest of the network."""
    outputs = chain(layers, torch.randn(1, WIDTH, dtype=torch.float64))
    change = torch.randn(1, WIDTH, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        targets = difference_targets(outputs, [layer.inverse for layer in layers], outputs[-1] + step * change)
    for number in range(3):

        def rest(value: Tensor, number: int = number) -> Tensor:
            for layer in layers[number:]:
                value = layer(value)
            return value

        jacobian = torch.autograd.functional.jacobian(rest, outputs[number][0])
        gauss_newton = torch.linalg.solve(jacobian.T @ jacobian, jacobian.T @ change[0])
        assert torch.allclose((targets[number] - outputs[number])[0] / step, gauss_newton, rtol=1e-5, atol=1e-6)


def test_an_output_that_is_its_target_passes_nothing_down_whatever_the_inverse(layers: list[SquareLayer]) -> None:
    outputs = chain(layers, torch.randn(4, WIDTH, dtype=torch.float64))
    wrong = [lambda above: (3.0 * above).sin()] * 3
    for target, output in zip(difference_targets(outputs, wrong, outputs[-1]), outputs, strict=True):
        assert torch.allclose(target, output, rtol=0, atol=1e-15)


def training(**options: Any) -> Training:
    model = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.Tanh)
    return Training(Case(lambda weights: DifferenceTargetPropagation(weights=weights, **options), model), dtype=torch.float64)


@pytest.mark.parametrize("target_step", [0.1, 2.0])
def test_the_classifier_and_the_last_block_follow_the_gradient(target_step: float) -> None:
    run = training(target_step=target_step)
    batch = next(run.train_split.batches())
    expected = run.algorithm.reference_gradient(*batch)
    run.algorithm.update(*batch)
    for name, parameter in run.algorithm.model.named_parameters():
        exact = torch.allclose(parameter.grad, expected[name], rtol=1e-9, atol=1e-12)
        assert exact == (not name.startswith("features.0")), name


def test_exact_transposed_inverses_give_backprop_for_a_linear_network() -> None:
    """A linear inverse with the transposed weights sends gradients down exactly as backprop does."""
    model = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.Identity)
    run = Training(Case(lambda weights: DifferenceTargetPropagation(weights=weights), model), dtype=torch.float64)
    algorithm = run.algorithm
    with torch.no_grad():
        algorithm.inverses[0].layer.weight.copy_(algorithm.model.blocks[1].linear.weight.T)  # type: ignore[attr-defined]
    batch = next(run.train_split.batches())
    expected = algorithm.reference_gradient(*batch)
    algorithm.update(*batch)
    for name, parameter in algorithm.model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-9, atol=1e-12), name


def test_inverses_learn_with_their_own_rate_and_leave_the_network_alone() -> None:
    run = training(inverse_units="none", inverse_learning_rate=0.02)
    inputs, targets = next(run.train_split.batches())
    run.algorithm.optimization.optimizer.param_groups[0]["lr"] = 0.0  # type: ignore[attr-defined]
    before = [value.detach().clone() for value in run.algorithm.model.parameters()]
    losses = [float(run.algorithm.update(inputs, targets)["inverse_loss"]) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    for old, new in zip(before, run.algorithm.model.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(("above", "below"), [((8, 4, 4), (6, 8, 8)), ((8, 3, 3), (6, 7, 7)), ((10,), (6, 2, 2)), ((10,), (12,))])
def test_an_inverse_has_the_shape_of_what_is_below(above: tuple[int, ...], below: tuple[int, ...]) -> None:
    assert InverseBlock(above, below, "tanh")(torch.rand(2, *above)).shape == (2, *below)


def test_convolutional_networks_train() -> None:
    model = partial(ConvNet, channels=(4, "pool", 6), hidden=(8,), units=nn.Tanh)
    run = Training(Case(lambda weights: DifferenceTargetPropagation(weights=weights), model)).run(6)
    assert all(torch.isfinite(value).all() for value in run.algorithm.model.parameters())


def test_without_hidden_layers_it_is_refused_and_with_one_there_is_no_inverse() -> None:
    model = partial(MLP, hidden=(12,), units=nn.Tanh)
    run = Training(Case(lambda weights: DifferenceTargetPropagation(weights=weights), model)).run(2)
    assert len(run.algorithm.inverses) == 0  # type: ignore[attr-defined]
    empty = partial(MLP, hidden=(), units=nn.Tanh)
    with pytest.raises(ConfigError, match="has no blocks"):
        Training(Case(lambda weights: DifferenceTargetPropagation(weights=weights), empty))


@pytest.mark.parametrize("options", [{"target_step": 0}, {"noise": -1}, {"inverse_learning_rate": 0}, {"inverse_units": "elu"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.{next(iter(options))}"):
        DifferenceTargetPropagation(**options)
