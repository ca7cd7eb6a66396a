"""The theorem check: both series against their definitions, and the theorem for small nudges (section 10, checks 8 and 9)."""

from __future__ import annotations

import pytest
import torch

from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.bptt import BackpropThroughTime
from altprop.algorithms.equilibrium_propagation.dynamics import input_drive, potentials
from altprop.algorithms.equilibrium_propagation.network import snapshot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation
from altprop.algorithms.equilibrium_propagation.theorem import GradientCheck, backward_series, check_gradients
from tests.algorithms.equilibrium_propagation.networks import KINDS, Kind, mini_batch, network_of
from tests.algorithms.equilibrium_propagation.trainings import gradient_of, parameters_of, set_up


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
@pytest.mark.parametrize("vector_field", [False, True])
def test_backward_series_adds_up_to_bptt(kind: Kind, vector_field: bool) -> None:
    """Section 10, check 8."""
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field)
    check = check_gradients(snapshot(model, loss), *mini_batch(), free_steps=9, steps=4, beta=0.1)
    algorithm = BackpropThroughTime(loss=loss, free_steps=9, differentiated_steps=4)
    expected = gradient_of(set_up(algorithm, model), *mini_batch())
    estimates = GradientCheck.estimates(check.backward)
    for parameter, value in expected.items():
        estimate = estimates[parameter]
        estimate = model.to_feedback_layout(estimate) if parameter.startswith("feedback") else estimate
        assert torch.allclose(estimate, value, atol=1e-12), parameter


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_forward_series_adds_up_to_equilibrium_propagation(kind: Kind) -> None:
    """The sum of consecutive contrasts telescopes; for a readout it is a difference of loss gradients."""
    name, loss, readout = kind
    model = network_of(name, readout=readout)
    check = check_gradients(snapshot(model, loss), *mini_batch(), free_steps=9, steps=4, beta=0.1)
    algorithm = EquilibriumPropagation(loss=loss, beta=0.1, nudging="one_sided", free_steps=9, nudge_steps=4)
    expected = gradient_of(set_up(algorithm, model), *mini_batch())
    estimates = GradientCheck.estimates(check.forward)
    readout_layer = f"layers.{len(model.layers) - 1}"
    for parameter, value in expected.items():
        if not (readout and parameter.startswith(readout_layer)):
            assert torch.allclose(estimates[parameter], value, atol=1e-10), parameter


def test_differencing_reruns_gives_the_same_backward_series() -> None:
    """The published method: rerun with K differentiated steps for every K, and subtract."""
    model = network_of("max")
    inputs, targets = mini_batch()
    network = snapshot(model, "mse")
    with torch.no_grad():
        start = Relaxation(network, inputs).run(network.zeros(4), 5)
        states = [start]
        for _ in range(4):
            states.append(Relaxation(network, inputs).run(states[-1], 1))
    series, _ = backward_series(network, inputs, targets, start, 4)
    partial = [torch.zeros_like(series["layers.0.weight"][0])]
    for count in range(1, 5):
        shorter, _ = backward_series(network, inputs, targets, states[4 - count], count)
        partial.append(shorter["layers.0.weight"].sum(dim=0))
    for time in range(4):
        assert torch.allclose(series["layers.0.weight"][time], partial[time + 1] - partial[time], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("mlp", "shifted_sigmoid"), ("average", "shifted_sigmoid"), ("max", "shifted_sigmoid"), ("mlp", "sigmoid")],
)
def test_neurons_follow_their_gradients_up_to_the_slope(name: str, activation: str) -> None:
    """Section 10, check 9, and trap 13: forward = slope at the fixed point times backward, within 1 % once converged."""
    model = network_of(name, activation=activation)  # type: ignore[arg-type]
    inputs, targets = mini_batch()
    network = snapshot(model, "mse")
    check = check_gradients(network, inputs, targets, free_steps=300, steps=10, beta=0.005, opposite=True)
    drive, _ = input_drive(network, inputs)
    fixed_point = Relaxation(network, inputs).run(network.zeros(4), 300)
    assert check.opposite is not None
    for index, potential in enumerate(potentials(network, drive, fixed_point)):
        slope = network.activations[index].slope(potential)
        forward = 0.5 * (check.forward[f"states.{index}"] + check.opposite[f"states.{index}"])
        backward = slope * check.backward[f"states.{index}"]
        assert float((forward - backward).norm() / backward.norm()) < 0.01


def test_errors_vanish_with_the_nudge_except_for_a_readout() -> None:
    model = network_of("mlp", readout=True)
    network = snapshot(model, "cross_entropy")
    errors = [
        check_gradients(network, *mini_batch(), free_steps=300, steps=12, beta=beta).errors() for beta in (0.1, 0.01, 0.001)
    ]
    for parameter in ("layers.0.weight", "layers.1.weight"):
        first, second, third = (error[parameter][0] for error in errors)
        assert third < 0.2 * second < 0.04 * first
        assert errors[-1][parameter][1] < 0.02
    assert 0.9 < errors[-1]["layers.2.weight"][0] < 1.1


def test_a_readout_has_no_estimate_to_align() -> None:
    """Its forward series is a difference of loss gradients, its backward series is all at time 0: their sums differ."""
    network = snapshot(network_of("mlp", readout=True), "cross_entropy")
    check = check_gradients(network, *mini_batch(), free_steps=300, steps=60, beta=0.01, opposite=True)
    assert set(check.alignments()) == {f"layers.{index}.{kind}" for index in (0, 1) for kind in ("weight", "bias")}
    assert set(check.bias_ratios()) == {"layers.0.weight", "layers.1.weight"}
    assert all(float(alignment.angle) < 1.0 for alignment in check.alignments().values())


@pytest.mark.parametrize("vector_field", [False, True])
def test_symmetric_estimates_have_a_fraction_of_the_bias(vector_field: bool) -> None:
    model = network_of("max", vector_field=vector_field)
    check = check_gradients(snapshot(model, "mse"), *mini_batch(), free_steps=200, steps=60, beta=0.05, opposite=True)
    one_sided = GradientCheck(check.forward, check.backward)
    assert one_sided.bias_ratios() == {}
    ratios = check.bias_ratios()
    assert set(ratios) == {name for name, _ in model.named_parameters() if name.endswith("weight")}
    if not vector_field:
        assert all(ratio < 0.2 for ratio in ratios.values())
        for name, alignment in check.alignments().items():
            assert float(alignment.angle) < float(one_sided.alignments()[name].angle)
            assert float(alignment.norm_ratio) == pytest.approx(1.0, abs=0.02)


def test_the_check_does_not_change_parameters() -> None:
    """Trap 13 d: the continual variant moves a copy."""
    model = network_of("max")
    before = parameters_of(model)
    network = snapshot(model, "mse")
    still = check_gradients(network, *mini_batch(), free_steps=20, steps=5, beta=0.1)
    moving = check_gradients(network, *mini_batch(), free_steps=20, steps=5, beta=0.1, continual=True)
    assert all(torch.equal(value, before[name]) for name, value in parameters_of(model).items())
    name = "layers.0.weight"
    assert torch.equal(still.forward[name][0], moving.forward[name][0])
    assert not torch.equal(still.forward[name][-1], moving.forward[name][-1])
    assert torch.allclose(still.forward[name], moving.forward[name], atol=1e-3)


def test_more_steps_than_in_the_free_phase_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and free_steps"):
        check_gradients(snapshot(network_of("mlp"), "mse"), *mini_batch(), free_steps=5, steps=6, beta=0.1)
