"""The closed-form time step against autograd of the primitive function, and the relaxation against the closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.dynamics import Masks, Nudge, input_drive, step
from altprop.algorithms.equilibrium_propagation.network import LOSSES, LossName, States, one_hot, snapshot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation, UpdateOrder
from altprop.models.energy import EnergyModel
from altprop.nn.energy.activations import ACTIVATIONS
from altprop.nn.energy.edges import to_working_layout, up
from tests.algorithms.equilibrium_propagation.networks import KINDS, Kind, mini_batch, network_of, random_states
from tests.algorithms.equilibrium_propagation.trainings import set_up

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def nudge_of(targets: Tensor, strength: float, like: Tensor) -> Nudge:
    return Nudge(one_hot(targets, like), torch.full((len(targets), 1), strength, dtype=torch.float64))


def primitive_step(model: EnergyModel, inputs: Tensor, states: States, targets: Tensor, loss: LossName, beta: float) -> States:
    """Take one step by differentiating ``Phi`` minus beta times the summed loss: the published form."""
    leaves = [state.clone().requires_grad_() for state in states]
    phi = model.primitive(inputs, leaves).sum()
    if beta:
        phi = phi - beta * LOSSES[loss](model.scores(leaves), targets) * len(targets)
    drives = torch.autograd.grad(phi, leaves)
    linear = loss == "cross_entropy" and not model.softmax_readout
    return [drive if linear and drive is drives[-1] else model.activation(drive) for drive in drives]


def vector_field_step(model: EnergyModel, inputs: Tensor, states: States, targets: Tensor, loss: LossName, beta: float) -> States:
    """Take one step of a vector-field network: every layer follows its own local function."""
    leaves = [state.clone().requires_grad_() for state in states]
    drives = []
    below = inputs
    for index, state in enumerate(leaves):
        edge, layer = model.edges[index], model.layers[index]
        local = (up(edge, below, to_working_layout(edge, layer.weight), layer.bias)[0] * state).sum()
        if index + 1 < len(leaves):
            edge = model.edges[index + 1]
            weight = to_working_layout(edge, model.feedback_weight(index))
            local = local + (up(edge, state, weight, None)[0] * leaves[index + 1]).sum()
        elif beta:
            local = local - beta * LOSSES[loss](model.scores(leaves), targets) * len(targets)
        drives.append(torch.autograd.grad(local, state)[0])
        below = state
    linear = loss == "cross_entropy" and not model.softmax_readout
    return [drive if linear and drive is drives[-1] else model.activation(drive) for drive in drives]


def assert_close(first: States, second: States, tolerance: float = 1e-12) -> None:
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance), index


@every_kind
@pytest.mark.parametrize("beta", [0.0, 0.7, -0.4])
@pytest.mark.parametrize("vector_field", [False, True])
def test_step_is_the_activation_of_the_gradient_of_phi(kind: Kind, beta: float, vector_field: bool) -> None:
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field)
    inputs, targets = mini_batch()
    states = random_states(model, 4)
    network = snapshot(model, loss)
    drive, _ = input_drive(network, inputs)
    taken = step(network, drive, states, nudge_of(targets, beta, network.scores(states)) if beta else None)
    expected = (vector_field_step if vector_field else primitive_step)(model, inputs, states, targets, loss, beta)
    assert_close(taken, expected)


@every_kind
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("vector_field", [False, True])
def test_relaxation_is_many_steps(kind: Kind, activation: str, vector_field: bool) -> None:
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field, activation=activation)  # type: ignore[arg-type]
    inputs, targets = mini_batch()
    network = snapshot(model, loss)
    drive, _ = input_drive(network, inputs)
    relaxation = Relaxation(network, inputs)
    free = relaxation.run(network.zeros(4), 6)
    assert relaxation.steps_taken == 6
    states = network.zeros(4)
    for _ in range(6):
        states = step(network, drive, states)
    assert_close(free, states, 1e-10)
    for steps in (0, 1, 6):
        assert_close(relaxation.run_from_zeros(steps), relaxation.run(network.zeros(4), steps), 1e-13)
        assert relaxation.steps_taken == steps
    nudge = nudge_of(targets, 0.3, network.scores(free))
    before = [state.clone() for state in free]
    nudged = relaxation.run(free, 4, nudge)
    assert_close(free, before, 0.0)
    for _ in range(4):
        states = step(network, drive, states, nudge)
    assert_close(nudged, states, 1e-10)


@every_kind
@pytest.mark.parametrize("vector_field", [False, True])
def test_parallel_phases_equal_sequential_phases(kind: Kind, vector_field: bool) -> None:
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field)
    inputs, targets = mini_batch()
    network = snapshot(model, loss)
    relaxation = Relaxation(network, inputs)
    free = relaxation.run(network.zeros(4), 5)
    one_by_one = [relaxation.run(free, 3, nudge_of(targets, strength, network.scores(free))) for strength in (0.4, -0.4)]
    both = nudge_of(targets, 0.4, network.scores(free))
    both = Nudge(torch.cat([both.targets] * 2), torch.cat([both.strength, -both.strength]))
    together = relaxation.run([torch.cat([state, state]) for state in free], 3, both)
    for index in range(2):
        assert_close(one_by_one[index], [state.chunk(2)[index] for state in together])
    for steps in (0, 1, 3, 8):
        start = [torch.cat([state, state]) for state in free]
        assert_close(relaxation.run_nudged(free, steps, both), relaxation.run(start, steps, both))
        assert relaxation.steps_taken == steps


@every_kind
def test_first_step_from_zeros(kind: Kind) -> None:
    """Section 10, check 3: only the input and the biases drive the first step."""
    name, loss, readout = kind
    model = network_of(name, readout=readout)
    inputs, _ = mini_batch()
    network = snapshot(model, loss)
    states = Relaxation(network, inputs).run_from_zeros(1)
    below = inputs
    for index, state in enumerate(states):
        drive, _ = up(network.edges[index], below, network.weights[index], network.biases[index])
        assert torch.allclose(state, network.activations[index](drive), atol=1e-12)
        below = torch.zeros_like(state)


@pytest.mark.parametrize("name", ["mlp", "max", "average", "strided", "mixed"])
@pytest.mark.parametrize("readout", [False, True])
def test_vector_field_with_equal_weights_is_the_symmetric_network(name: str, readout: bool) -> None:
    """Section 10, check 10: per-channel biases do not move the positions of a max pooling."""
    symmetric, separate = network_of(name, readout=readout), network_of(name, readout=readout, vector_field=True)
    separate.layers.load_state_dict(symmetric.layers.state_dict())
    with torch.no_grad():
        for index, layer in enumerate(separate.feedback):
            layer.weight.copy_(separate.to_feedback_layout(symmetric.layers[index + 1].weight))
    inputs, _ = mini_batch()
    runs = []
    for model in (symmetric, separate):
        network = snapshot(model, "cross_entropy" if readout else "mse")
        runs.append(Relaxation(network, inputs).run(network.zeros(4), 12))
    assert_close(*runs, 1e-12)


@pytest.mark.parametrize("readout", [False, True])
def test_dropout_that_drops_nothing_changes_nothing(readout: bool) -> None:
    """Section 10, check 15."""
    model = network_of("max", readout=readout)
    inputs, targets = mini_batch()
    network = snapshot(model, "cross_entropy" if readout else "mse")
    ones = Masks(torch.ones_like(inputs), tuple(torch.ones(4, *shape, dtype=torch.float64) for shape in model.state_shapes))
    nudge = nudge_of(targets, 0.3, network.scores(network.zeros(4)))
    plain = Relaxation(network, inputs).run(network.zeros(4), 7, nudge)
    assert_close(Relaxation(network, inputs, masks=ones).run(network.zeros(4), 7, nudge), plain)


@pytest.mark.parametrize(("name", "readout"), [("max", True), ("mlp", False), ("average", True)])
def test_dropout_follows_its_primitive_function(name: str, readout: bool) -> None:
    """Potentials are the gradient of ``Phi`` at masked states, multiplied by the published factors, the last one off by one."""
    model = network_of(name, readout=readout)
    count = model.num_states
    model.keep_probabilities = (1.0, *(0.5 + 0.1 * index for index in range(count)))
    inputs, targets = mini_batch()
    loss: LossName = "cross_entropy" if readout else "mse"
    network = snapshot(model, loss)
    assert network.factors == (*model.keep_probabilities[1:count], model.keep_probabilities[count - 1])
    states = random_states(model, 4)
    generator = torch.Generator().manual_seed(5)
    masks = Masks(
        torch.ones_like(inputs),
        tuple(
            (torch.rand(state.shape, generator=generator) < keep).double() / keep
            for state, keep in zip(states, model.keep_probabilities[1:], strict=True)
        ),
    )
    leaves = [state.clone().requires_grad_() for state in states]
    active = [mask * leaf for mask, leaf in zip(masks.states, leaves, strict=True)]
    seen = active if readout else leaves
    phi = model.primitive(inputs, active).sum() - 0.6 * LOSSES[loss](model.scores(seen), targets) * len(targets)
    drives = torch.autograd.grad(phi, leaves)
    expected = [model.activation(factor * drive) for factor, drive in zip(network.factors, drives, strict=True)]
    nudge = nudge_of(targets, 0.6, network.scores(states))
    assert_close(Relaxation(network, inputs, masks=masks).run(states, 1, nudge), expected)


@pytest.mark.parametrize(("name", "same"), [("average", True), ("none", True), ("mlp", True), ("max", False)])
@pytest.mark.parametrize("vector_field", [False, True])
def test_red_black_finds_the_same_fixed_point_unless_max_pooling_routes(name: str, same: bool, vector_field: bool) -> None:
    """Trap 2: red-black sweeps may end at another state than the synchronous dynamics."""
    model = network_of(name, vector_field=vector_field, activation="hard_sigmoid")
    inputs, _ = mini_batch()
    network = snapshot(model, "mse")
    synchronous = Relaxation(network, inputs).run(network.zeros(4), 200)
    swept = Relaxation(network, inputs, update_order="red_black").run(network.zeros(4), 100)
    again = Relaxation(network, inputs, update_order="red_black").run(swept, 1)
    assert_close(swept, again)
    if same:
        assert_close(synchronous, swept, 1e-9)


def test_red_black_updates_even_layers_first() -> None:
    model = network_of("average", vector_field=True)
    inputs, targets = mini_batch()
    network = snapshot(model, "mse")
    states = random_states(model, 4)
    nudge = nudge_of(targets, 0.5, states[-1])
    drive, _ = input_drive(network, inputs)
    expected = list(states)
    for first in (1, 0):
        new = step(network, drive, expected, nudge)
        expected = [new[index] if index % 2 == first else expected[index] for index in range(len(states))]
    assert_close(Relaxation(network, inputs, update_order="red_black").run(states, 1, nudge), expected)


@pytest.mark.parametrize("order", ["synchronous", "red_black"])
def test_a_phase_ends_early_once_nothing_moves(order: str) -> None:
    model = network_of("max")
    inputs, _ = mini_batch()
    network = snapshot(model, "mse")
    whole = Relaxation(network, inputs, update_order=order).run(network.zeros(4), 300)  # type: ignore[arg-type]
    early = Relaxation(network, inputs, update_order=order, tolerance=1e-9)  # type: ignore[arg-type]
    assert_close(early.run(network.zeros(4), 300), whole, 1e-7)
    assert early.steps_taken < 150
    taken = early.steps_taken
    assert_close(early.run_from_zeros(300), whole, 1e-7)
    assert early.steps_taken == taken
    assert early.run(network.zeros(4), 7) is not None
    assert early.steps_taken == 7
    residuals = Relaxation(network, inputs, update_order=order).residuals(network.zeros(4), 60)  # type: ignore[arg-type]
    assert residuals.shape == (60, len(model.state_shapes))
    assert residuals[-1].max() < 1e-6 < residuals[0].min()


def test_a_batch_of_one_and_a_single_layer_work() -> None:
    """Trap 14."""
    model = network_of("max")
    inputs, _ = mini_batch(1)
    network = snapshot(model, "mse")
    assert network.scores(Relaxation(network, inputs).run(network.zeros(1), 3)).shape == (1, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_steps_are_the_plain_ones() -> None:
    model = network_of("max")
    inputs, targets = mini_batch()
    network = snapshot(model, "mse")
    plain, compiled = Relaxation(network, inputs), Relaxation(network, inputs, compiled=True)
    nudge = nudge_of(targets, 0.3, network.zeros(4)[-1])
    assert_close(compiled.run(network.zeros(4), 6, nudge), plain.run(network.zeros(4), 6, nudge), 1e-10)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["max", "average", "mixed"])
@pytest.mark.parametrize("order", ["synchronous", "red_black"])
def test_the_memory_format_is_that_of_the_run(name: str, order: UpdateOrder, channels_last: bool) -> None:
    """``trainer.channels_last`` decides, and the other one gives the same states to round-off."""
    model = network_of(name)
    algorithm = set_up(EquilibriumPropagation(), model)
    algorithm.context = replace(algorithm.context, channels_last=channels_last)
    network = algorithm.network()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    inputs, _ = mini_batch()
    states = Relaxation(network, inputs, update_order=order).run(network.zeros(4), 6)
    for index, (edge, weight) in enumerate(zip(network.edges, network.weights, strict=True)):
        if edge.is_convolution:
            assert weight.is_contiguous(memory_format=layout)
            if index:
                assert states[index - 1].is_contiguous(memory_format=layout)
    other = snapshot(model, "mse", channels_last=not channels_last)
    assert_close(states, Relaxation(other, inputs, update_order=order).run(other.zeros(4), 6), 1e-12)
