"""Residual energy-based networks: the step, the fixed point and the gradient against autograd of the primitive function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.gradients import NUDGINGS
from altprop.algorithms.equilibrium_propagation.network import LOSSES, LossName, snapshot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation, unrolled
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.models.energy_resnet import EnergyResNet
from altprop.problems import ConfigError
from tests.algorithms.equilibrium_propagation.networks import CLASSES, IMAGE, mini_batch, random_states
from tests.algorithms.equilibrium_propagation.test_dynamics import nudge_of, primitive_step
from tests.algorithms.equilibrium_propagation.test_gradients import assert_same, estimate, grad_by_autograd

KINDS: list[tuple[LossName, bool]] = [("mse", False), ("cross_entropy", False), ("cross_entropy", True)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def residual(**options: Any) -> EnergyResNet:
    torch.manual_seed(0)
    model = EnergyResNet(**{"stages": (3, 4), "input_shape": IMAGE, "num_classes": CLASSES, **options})
    return model.double()


@pytest.mark.parametrize(("loss", "readout"), KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_a_step_follows_the_gradient_of_the_primitive_function(loss: LossName, readout: bool, beta: float) -> None:
    model = residual(softmax_readout=readout)
    inputs, targets = mini_batch()
    states = random_states(model, 4)
    relaxation = Relaxation(snapshot(model, loss), inputs)
    nudge = nudge_of(targets, beta, torch.zeros(4, CLASSES, dtype=torch.float64)) if beta else None
    expected = states
    for _ in range(3):
        expected = primitive_step(model, inputs, expected, targets, loss, beta)
    for state, other in zip(relaxation.run(states, 3, nudge), expected, strict=True):
        assert torch.allclose(state, other, rtol=1e-12, atol=1e-12)


def test_the_skip_connections_take_part() -> None:
    inputs, _ = mini_batch()
    states = random_states(residual(), 4)
    with_skips, without = residual(skip=0.5), residual(skip=0.0)
    assert without.skips == ()
    assert [skip[:2] for skip in with_skips.skips] == [(0, 2), (3, 5)]
    shared = sum((states[a] * states[b]).flatten(1).sum(dim=1) for a, b in ((0, 2), (3, 5)))
    assert torch.allclose(with_skips.primitive(inputs, states) - without.primitive(inputs, states), 0.5 * shared, rtol=1e-12)


def free_state(model: EnergyResNet, inputs: Tensor, loss: LossName = "mse", steps: int = 2000) -> list[Tensor]:
    network = snapshot(model, loss)
    return Relaxation(network, inputs).run(network.zeros(len(inputs)), steps)


def test_the_free_fixed_point_is_a_stationary_point_of_the_energy() -> None:
    """``E = 1/2 sum |s|^2 - Phi``: its gradient is zero between the bounds, and points out of them where a state is clipped."""
    model = residual(pool="average")
    inputs, _ = mini_batch()
    leaves = [state.clone().requires_grad_() for state in free_state(model, inputs)]
    energy = 0.5 * sum((state.square().sum() for state in leaves), inputs.new_zeros(())) - model.primitive(inputs, leaves).sum()
    clipped = 0
    for state, slope in zip(leaves, torch.autograd.grad(energy, leaves), strict=True):
        low, high = state == 0.0, state == 1.0
        clipped += int(low.sum()) + int(high.sum())
        assert float(slope[~low & ~high].abs().max()) < 1e-10
        assert bool((slope[low] >= -1e-10).all())
        assert bool((slope[high] <= 1e-10).all())
    assert clipped > 0


@pytest.mark.parametrize(("loss", "readout"), KINDS)
def test_estimates_are_contrasts_of_the_primitive_function(loss: LossName, readout: bool) -> None:
    model = residual(softmax_readout=readout)
    inputs, targets = mini_batch()
    free, plus, minus = (random_states(model, 4, seed) for seed in (1, 2, 3))
    symmetric = estimate(model, loss, "symmetric", [free, plus, minus])
    assert_same(symmetric, grad_by_autograd(model, inputs, targets, loss, minus, plus, (0.3, -0.3)))


@pytest.mark.parametrize(("loss", "readout"), KINDS)
def test_for_small_beta_the_estimate_is_the_gradient_of_backpropagation_through_time(loss: LossName, readout: bool) -> None:
    """The error of symmetric nudging falls with the square of beta. The weights are small, so that the states settle."""
    model = residual(activation="tanh", pool="average", skip=0.3, init_scale=0.4, softmax_readout=readout)
    inputs, targets = mini_batch()
    network = snapshot(model, loss)
    states = unrolled(network, inputs, network.zeros(4), 150)
    names, parameters = zip(*model.named_parameters(), strict=True)
    exact = dict(zip(names, torch.autograd.grad(LOSSES[loss](network.scores(states), targets), parameters), strict=True))

    def worst(beta: float) -> float:
        relaxation = Relaxation(snapshot(model, loss), inputs)
        free = [state.detach() for state in states]
        phases = [
            relaxation.run(free, 150, nudge_of(targets, sign * beta, torch.zeros(4, CLASSES, dtype=torch.float64)))
            for sign in NUDGINGS["symmetric"].strengths
        ]
        found = estimate(model, loss, "symmetric", [free, *phases], beta)
        return max(float((found[name] - exact[name]).abs().max() / exact[name].abs().max()) for name in names)

    assert worst(1e-3) < 1e-5
    assert worst(1e-2) / worst(1e-3) == pytest.approx(100.0, rel=0.1)


def test_four_stages_have_thirteen_layers() -> None:
    with torch.device("meta"):
        model = EnergyResNet(stages=(64, 128, 256, 512), input_shape=(3, 32, 32), num_classes=10)
    assert len(model.layers) == 13
    assert model.state_shapes[-2] == (512, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": 1.0}, r"model\.skip"),
        ({"stages": ()}, r"model\.stages"),
        ({"stages": (2, 2, 2, 2)}, "nothing is left of images"),
        ({"pool": "none"}, r"model\.pool"),
        ({"activation": "relu6"}, r"model\.activation"),
        ({"keep_probabilities": (1.0,)}, r"model\.keep_probabilities"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        residual(**options)


def test_an_update_in_two_colors_is_refused() -> None:
    inputs, _ = mini_batch()
    with pytest.raises(ValueError, match="red_black"):
        Relaxation(snapshot(residual(), "mse"), inputs, update_order="red_black")
    base = ["model=eqprop_resnet", "algorithm=equilibrium_propagation"]
    assert problems_of(compose(base)) == []
    (problem,) = problems_of(compose([*base, "algorithm.update_order=red_black"]))
    assert problem.key == "algorithm.update_order"
    (problem,) = problems_of(compose([*base, "model.skip=1.0"]))
    assert problem.key == "model.skip"
    (problem,) = problems_of(compose([*base, "algorithm.learning_rates=[0.1]"]))
    assert "7 weight layers" in problem.allowed
