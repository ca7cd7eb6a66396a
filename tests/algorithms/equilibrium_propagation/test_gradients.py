"""Gradients from states against autograd of the primitive function, and the properties of the estimates."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.contrasts import Gradients, readout_gradient, state_contrast
from altprop.algorithms.equilibrium_propagation.dynamics import Nudge
from altprop.algorithms.equilibrium_propagation.gradients import NUDGINGS, assign, nudged_gradient
from altprop.algorithms.equilibrium_propagation.network import LOSSES, LossName, States, one_hot, snapshot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation
from altprop.models.energy import EnergyConvNet, EnergyModel
from altprop.nn.energy.edges import to_working_layout, up
from tests.algorithms.equilibrium_propagation.networks import CLASSES, KINDS, Kind, mini_batch, network_of, random_states

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def grad_by_autograd(
    model: EnergyModel, inputs: Tensor, targets: Tensor, loss: LossName, upper: States, lower: States, betas: tuple[float, float]
) -> Gradients:
    """Differentiate ``-(mean Phi(upper) - mean Phi(lower)) / (difference of betas)`` with respect to every parameter."""

    def phi(states: States, beta: float) -> Tensor:
        return model.primitive(inputs, states).mean() - beta * LOSSES[loss](model.scores(states), targets)

    total = -(phi(upper, betas[1]) - phi(lower, betas[0])) / (betas[1] - betas[0])
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True), strict=True))


def assert_same(first: Gradients, second: Gradients, tolerance: float = 1e-11) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        scale = float(second[name].abs().max())
        assert torch.allclose(value, second[name], rtol=tolerance, atol=tolerance * max(scale, 1.0)), name


def estimate(
    model: EnergyModel, loss: LossName, nudging: str, states: list[States], beta: float = 0.3, **options: object
) -> Gradients:
    inputs, targets = mini_batch()
    network = snapshot(model, loss)
    hot = one_hot(targets, torch.zeros(4, CLASSES, dtype=torch.float64))
    with torch.no_grad():
        return nudged_gradient(network, inputs, states[0], states[1:], NUDGINGS[nudging], beta, hot, **options)  # type: ignore[arg-type]


@every_kind
def test_estimates_are_contrasts_of_phi(kind: Kind) -> None:
    """Section 10, check 5, for every pool, stride, loss and readout."""
    name, loss, readout = kind
    model = network_of(name, readout=readout)
    inputs, targets = mini_batch()
    free, plus, minus = (random_states(model, 4, seed) for seed in (1, 2, 3))
    one_sided = estimate(model, loss, "one_sided", [free, plus])
    assert_same(one_sided, grad_by_autograd(model, inputs, targets, loss, plus, free, (0.0, 0.3)))
    symmetric = estimate(model, loss, "symmetric", [free, plus, minus])
    assert_same(symmetric, grad_by_autograd(model, inputs, targets, loss, minus, plus, (0.3, -0.3)))


@every_kind
def test_five_phase_is_the_fourth_order_difference(kind: Kind) -> None:
    name, loss, readout = kind
    model = network_of(name, readout=readout)
    inputs, targets = mini_batch()
    states = [random_states(model, 4, seed) for seed in range(5)]
    _, plus, minus, plus2, minus2 = states
    near = grad_by_autograd(model, inputs, targets, loss, minus, plus, (0.3, -0.3))
    far = grad_by_autograd(model, inputs, targets, loss, minus2, plus2, (0.6, -0.6))
    expected = {name: (4 * near[name] - far[name]) / 3 for name in near}
    assert_same(estimate(model, loss, "five_phase", states), expected)


@every_kind
@pytest.mark.parametrize("same_update", [False, True])
def test_vector_field_estimates_move_the_receiving_unit(kind: Kind, same_update: bool) -> None:
    """Section 2.6: the sending unit stays at the free state; with the same update both move and the pair gets the mean."""
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=True)
    inputs, _ = mini_batch()
    free, plus, minus = (random_states(model, 4, seed) for seed in (1, 2, 3))

    def mean_product(edge_index: int, weight: Tensor, bias: Tensor | None, below: Tensor, above: Tensor) -> Tensor:
        edge = model.edges[edge_index]
        return (up(edge, below, to_working_layout(edge, weight), bias)[0] * above).flatten(1).sum(1).mean()

    for nudging, upper, lower, scale in (("one_sided", plus, free, -1 / 0.3), ("symmetric", plus, minus, -1 / 0.6)):
        result = estimate(model, loss, nudging, [free, plus, minus][: 2 + (nudging == "symmetric")], same_update=same_update)
        total = torch.zeros((), dtype=torch.float64)
        for index in range(model.num_states):
            layer = model.layers[index]
            senders = (
                (inputs, inputs)
                if index == 0
                else (upper[index - 1], lower[index - 1])
                if same_update
                else (free[index - 1],) * 2
            )
            total = total + mean_product(index, layer.weight, layer.bias, senders[0], upper[index])
            total = total - mean_product(index, layer.weight, layer.bias, senders[1], lower[index])
        for index in range(model.num_states - 1):
            senders = (upper[index + 1], lower[index + 1]) if same_update else (free[index + 1],) * 2
            total = total + mean_product(index + 1, model.feedback_weight(index), None, upper[index], senders[0])
            total = total - mean_product(index + 1, model.feedback_weight(index), None, lower[index], senders[1])
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(scale * total, parameters, allow_unused=True, materialize_grads=True)
        expected = dict(zip(names, gradients, strict=True))
        for index in range(model.num_states - 1):
            back, forth = f"feedback.{index}.weight", f"layers.{index + 1}.weight"
            expected[back] = model.to_feedback_layout(expected[back])  # transposition is its own inverse
            if same_update:
                expected[back] = expected[forth] = 0.5 * (expected[back] + expected[forth])
        for name in result:
            if not (readout and name.startswith(f"layers.{len(model.layers) - 1}")):
                assert torch.allclose(result[name], expected[name], rtol=1e-11, atol=1e-11), name


@every_kind
@pytest.mark.parametrize("vector_field", [False, True])
def test_symmetric_is_the_mean_of_both_one_sided_estimates(kind: Kind, vector_field: bool) -> None:
    """Section 10, checks 6 and 14: flipping the sign of beta changes nothing either."""
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field)
    free, plus, minus = (random_states(model, 4, seed) for seed in (1, 2, 3))
    right = estimate(model, loss, "one_sided", [free, plus], 0.3)
    left = estimate(model, loss, "one_sided", [free, minus], -0.3)
    symmetric = estimate(model, loss, "symmetric", [free, plus, minus], 0.3)
    assert_same(symmetric, {name: 0.5 * (right[name] + left[name]) for name in right}, 1e-10)
    assert_same(symmetric, estimate(model, loss, "symmetric", [free, minus, plus], -0.3), 1e-10)


def test_the_published_vector_field_mlp_fixes_the_nudged_state() -> None:
    """Trap 11: this is an option, with which the symmetric estimate is no longer the mean of the one-sided ones."""
    model = network_of("mlp", vector_field=True)
    free, plus, minus = (random_states(model, 4, seed) for seed in (1, 2, 3))
    rule = estimate(model, "mse", "symmetric", [free, plus, minus])
    quirk = estimate(model, "mse", "symmetric", [free, plus, minus], fixed=plus)
    assert torch.equal(rule["layers.0.weight"], quirk["layers.0.weight"])
    expected = -((plus[1] - minus[1]).t() @ plus[0]) / 4 / 0.6
    assert torch.allclose(quirk["layers.1.weight"], expected, atol=1e-12)
    assert not torch.allclose(rule["layers.1.weight"], expected, atol=1e-3)


def test_separate_updates_need_the_fixed_state() -> None:
    model = network_of("mlp", vector_field=True)
    inputs, _ = mini_batch()
    states = random_states(model, 4)
    with pytest.raises(ValueError, match="fixed state"):
        state_contrast(snapshot(model, "mse"), inputs, states, states)


def test_readout_gradient_is_the_gradient_of_the_loss() -> None:
    model = network_of("mixed", readout=True)
    _, targets = mini_batch()
    states = random_states(model, 4)
    network = snapshot(model, "cross_entropy")
    loss = LOSSES["cross_entropy"](model.scores(states), targets)
    weight, bias = torch.autograd.grad(loss, list(model.layers[-1].parameters()))
    result = readout_gradient(network, states, one_hot(targets, network.scores(states)))
    last = len(model.layers) - 1
    assert torch.allclose(result[f"layers.{last}.weight"], weight, atol=1e-12)
    assert torch.allclose(result[f"layers.{last}.bias"], bias, atol=1e-12)


def test_assigned_gradients_pass_through_a_parametrization() -> None:
    """A gradient is backpropagated through a weights rule, and two assignments add up."""

    class Doubled(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2.0 * weight

    model = network_of("max", vector_field=True)
    torch.nn.utils.parametrize.register_parametrization(model.layers[1], "weight", Doubled())
    gradients = estimate(model, "mse", "one_sided", [random_states(model, 4, 1), random_states(model, 4, 2)])
    assign(model, copy.deepcopy(gradients))
    original = model.layers[1].parametrizations.weight.original
    assert torch.allclose(original.grad, 2.0 * gradients["layers.1.weight"])
    assert torch.equal(model.feedback[0].weight.grad, gradients["feedback.0.weight"])
    assign(model, copy.deepcopy(gradients))
    assert torch.allclose(original.grad, 4.0 * gradients["layers.1.weight"])
    assert torch.allclose(model.layers[0].bias.grad, 2.0 * gradients["layers.0.bias"])


def test_differences_first_keep_the_first_layers_gradient_in_float32() -> None:
    """Trap 4 on a narrow copy of the paper's ConvNet: subtracting derivatives loses precision, subtracting states does not."""
    torch.manual_seed(0)
    model = EnergyConvNet(
        channels=(32, 64, 64), kernels=(3, 3, 3), strides=(1, 1, 1), paddings=(1, 1, 0), pools=("max", "max", "max"),
        activation="half_slope_hard_sigmoid", input_shape=(3, 24, 24), num_classes=10,
    )  # fmt: skip
    inputs = torch.randn(4, 3, 24, 24)
    states = [torch.rand(4, *shape) for shape in model.state_shapes]
    near = [state + 1e-5 * torch.randn_like(state) for state in states]
    exact = copy.deepcopy(model).double()
    reference = state_contrast(
        snapshot(exact, "mse"), inputs.double(), [state.double() for state in near], [state.double() for state in states]
    )
    network = snapshot(model, "mse")
    zeros = [torch.zeros_like(state) for state in states]
    with torch.no_grad():
        first = state_contrast(network, inputs, near, states)
        late = {
            name: state_contrast(network, inputs, near, zeros)[name] - state_contrast(network, inputs, states, zeros)[name]
            for name in first
        }

    def error(gradients: Gradients) -> float:
        name = "layers.0.weight"
        return float((gradients[name].double() - reference[name]).norm() / reference[name].norm())

    assert error(first) < 2e-3
    assert error(late) > 5 * error(first)


def test_the_first_layers_gradient_of_the_papers_network_in_float32() -> None:
    """Trap 4 at the initialization of the CIFAR-10 ConvNet: errors below 0.2 %; those of the published form are 11 and 75 %."""
    gradients = {}
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        model = EnergyConvNet(
            channels=(128, 256, 512, 512), kernels=(3,) * 4, strides=(1,) * 4, paddings=(1, 1, 1, 0), pools=("max",) * 4,
            activation="half_slope_hard_sigmoid", input_shape=(3, 32, 32), num_classes=10,
        ).to(dtype)  # fmt: skip
        inputs = 0.45 * torch.randn(6, 3, 32, 32, dtype=torch.float64)
        network = snapshot(model, "mse")
        hot = one_hot(torch.arange(6), torch.zeros(6, 10, dtype=dtype))
        with torch.no_grad():
            relaxation = Relaxation(network, inputs.to(dtype))
            free = relaxation.run(network.zeros(6), 15)
            phases = [relaxation.run(free, 25, Nudge(hot, torch.full((6, 1), beta, dtype=dtype))) for beta in (0.5, -0.5)]
            gradients[dtype] = nudged_gradient(network, inputs.to(dtype), free, phases, NUDGINGS["symmetric"], 0.5, hot)
    for name in ("layers.0.weight", "layers.0.bias"):
        exact = gradients[torch.float64][name]
        assert float((gradients[torch.float32][name].double() - exact).norm() / exact.norm()) < 2e-3
