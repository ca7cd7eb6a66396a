"""A training step of each algorithm, checked as in section 10 of the specification."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, get_type_hints

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.base import EnergyAlgorithm, EnergyOptions
from altprop.algorithms.equilibrium_propagation.bptt import BackpropThroughTime
from altprop.algorithms.equilibrium_propagation.continual import ContinualEquilibriumPropagation, converted_decay
from altprop.algorithms.equilibrium_propagation.dynamics import Masks, Nudge, input_drive, step
from altprop.algorithms.equilibrium_propagation.network import LOSSES, one_hot, snapshot
from altprop.algorithms.equilibrium_propagation.nudged import NudgedAlgorithm, NudgedOptions
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation
from altprop.algorithms.equilibrium_propagation.schedule import CosineThenConstant
from altprop.algorithms.schedule import Schedule
from altprop.config.checks.targets import signature_of
from altprop.models.energy import EnergyModel
from tests.algorithms.equilibrium_propagation.networks import KINDS, Kind, mini_batch, network_of
from tests.algorithms.equilibrium_propagation.trainings import distance, gradient_of, parameters_of, set_up


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("algorithm", [EquilibriumPropagation, ContinualEquilibriumPropagation, BackpropThroughTime])
def test_shared_options_are_known_to_configuration_checks(algorithm: type[EnergyAlgorithm]) -> None:
    signature = signature_of(algorithm)
    assert signature is not None
    assert not signature.open_ended
    bases = {EnergyAlgorithm: EnergyOptions, NudgedAlgorithm: NudgedOptions}
    for base, options in bases.items():
        hints = get_type_hints(options, include_extras=True)
        own = signature_of(base)
        assert own is not None
        assert {name: parameter.annotation for name, parameter in own.parameters.items()} == hints
        assert (issubclass(algorithm, base)) == (
            hints.items() <= {n: p.annotation for n, p in signature.parameters.items()}.items()
        )
    with pytest.raises(TypeError, match="estimator"):
        algorithm(estimator=None)  # type: ignore[call-arg]


LONG = {"free_steps": 150, "loss": "mse"}


def ep_gradient(name: str, nudging: str, beta: float, **options: Any) -> dict[str, Tensor]:
    model = network_of(name, readout=options.pop("readout", False), vector_field=options.pop("vector_field", False))
    algorithm = EquilibriumPropagation(beta=beta, nudging=nudging, nudge_steps=100, **{**LONG, **options})  # type: ignore[arg-type]
    return gradient_of(set_up(algorithm, model), *mini_batch())


def bptt_gradient(name: str, **options: Any) -> dict[str, Tensor]:
    model = network_of(name, readout=options.pop("readout", False))
    algorithm = BackpropThroughTime(differentiated_steps=100, **{**LONG, **options})
    return gradient_of(set_up(algorithm, model), *mini_batch())


@pytest.mark.parametrize(
    ("name", "loss", "readout"), [("mlp", "mse", False), ("max", "mse", False), ("average", "cross_entropy", True)]
)
@pytest.mark.parametrize(("nudging", "order"), [("one_sided", 1), ("symmetric", 2), ("five_phase", 4)])
def test_bias_falls_with_a_power_of_beta(name: str, loss: str, readout: bool, nudging: str, order: int) -> None:
    """Section 10, check 7: the bias falls with beta, its square, or its fourth power."""
    truth = bptt_gradient(name, loss=loss, readout=readout)
    betas = (0.2, 0.1, 0.05) if order < 4 else (0.2, 0.1)
    errors = [distance(ep_gradient(name, nudging, beta, loss=loss, readout=readout), truth) for beta in betas]
    measured = [float(torch.log2(torch.tensor(first / second))) for first, second in pairwise(errors)]
    assert all(abs(power - order) < 0.25 * order for power in measured), (errors, measured)


def test_random_sign_is_one_of_the_two_one_sided_estimates() -> None:
    """Both signs occur about equally often, from the run's own stream; their mean is the symmetric estimate (trap 7)."""
    model = network_of("mlp")
    algorithm = set_up(EquilibriumPropagation(beta=0.3, nudging="random_sign", free_steps=30, nudge_steps=8), model, lr=1e-300)
    inputs, targets = mini_batch()
    plus, minus = (
        gradient_of(set_up(EquilibriumPropagation(beta=beta, free_steps=30, nudge_steps=8), network_of("mlp")), inputs, targets)
        for beta in (0.3, -0.3)
    )
    signs = []
    for _ in range(40):
        algorithm.train_step(inputs, targets)
        gradient = model.layers[0].weight.grad
        is_plus = torch.allclose(gradient, plus["layers.0.weight"], rtol=1e-12, atol=1e-15)  # 0.3 itself, not its float32 value
        assert is_plus != torch.allclose(gradient, minus["layers.0.weight"], rtol=1e-12, atol=1e-15)
        signs.append(is_plus)
    assert 8 < sum(signs) < 32


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
@pytest.mark.parametrize("vector_field", [False, True])
def test_bptt_through_all_steps_is_autograd(kind: Kind, vector_field: bool) -> None:
    """Section 10, check 8."""
    name, loss, readout = kind
    model = network_of(name, readout=readout, vector_field=vector_field)
    inputs, targets = mini_batch()
    network = snapshot(model, loss)
    drive, _ = input_drive(network, inputs)
    states = network.zeros(4)
    for _ in range(6):
        states = step(network, drive, states)
    expected = torch.autograd.grad(LOSSES[loss](network.scores(states), targets), list(model.parameters()))
    algorithm = BackpropThroughTime(loss=loss, free_steps=6, differentiated_steps=6)
    gradients = gradient_of(set_up(algorithm, model), inputs, targets)
    for (parameter, value), truth in zip(gradients.items(), expected, strict=True):
        assert torch.allclose(value, truth, atol=1e-12), parameter


def test_bptt_differentiates_the_last_steps_only() -> None:
    inputs, targets = mini_batch()
    model = network_of("max")
    network = snapshot(model, "mse")
    with torch.no_grad():
        states = Relaxation(network, inputs).run(network.zeros(4), 7)
    drive, _ = input_drive(network, inputs)
    for _ in range(3):
        states = step(network, drive, states)
    expected = torch.autograd.grad(LOSSES["mse"](states[-1], targets), list(model.parameters()))
    gradients = gradient_of(set_up(BackpropThroughTime(free_steps=10, differentiated_steps=3), model), inputs, targets)
    for value, truth in zip(gradients.values(), expected, strict=True):
        assert torch.allclose(value, truth, atol=1e-12)


@pytest.mark.parametrize("same_update", [False, True])
def test_only_decay_changes_the_difference_of_weights_with_the_same_update(same_update: bool) -> None:
    """Section 10, check 10: ``W - B`` is multiplied by ``1 - rate * decay`` per step of plain SGD."""
    model = network_of("max", vector_field=True)
    algorithm = EquilibriumPropagation(
        beta=0.3, nudging="symmetric", free_steps=20, nudge_steps=5, same_update=same_update,
        learning_rates=[0.1, 0.2, 0.3], weight_decays=[0.0, 0.5, 0.0],
    )  # fmt: skip
    set_up(algorithm, model)

    def gaps() -> list[Tensor]:
        return [(model.layers[index + 1].weight - model.feedback_weight(index)).detach().clone() for index in range(2)]

    before = gaps()
    algorithm.train_step(*mini_batch())
    shares = (1.0 - 0.2 * 0.5, 1.0)
    equal = [torch.allclose(gap, share * old, atol=1e-12) for gap, share, old in zip(gaps(), shares, before, strict=True)]
    assert all(equal) if same_update else not any(equal)


@pytest.mark.parametrize(("name", "vector_field"), [("mlp", False), ("max", False), ("mixed", False), ("max", True)])
def test_continual_updates_equal_equilibrium_propagation_for_small_rates(name: str, vector_field: bool) -> None:
    """Section 10, check 11."""
    model = network_of(name, vector_field=vector_field)
    rate = 1e-7
    algorithm = set_up(ContinualEquilibriumPropagation(beta=0.3, free_steps=40, nudge_steps=6), model, lr=rate)
    moved = gradient_of(algorithm, *mini_batch())
    expected = gradient_of(
        set_up(EquilibriumPropagation(beta=0.3, free_steps=40, nudge_steps=6), network_of(name, vector_field=vector_field)),
        *mini_batch(),
    )
    # In a vector-field network the sending units of consecutive contrasts move too; only the input layer has none.
    names = [name for name in expected if not vector_field or name.startswith("layers.0") or name.endswith("bias")]
    assert distance({key: moved[key] / rate for key in names}, {key: expected[key] for key in names}) < 1e-4


@pytest.mark.parametrize(("third_phase", "share"), [("published", 1.5), ("symmetric", 1.0)])
def test_third_phases_of_continual_updates(third_phase: str, share: float) -> None:
    """Trap 8: the published phase adds half a gradient of the opposite nudge; the symmetric one is the symmetric estimate."""
    rate = 1e-7
    options = {"beta": 0.2, "free_steps": 200}
    algorithm = ContinualEquilibriumPropagation(third_phase=third_phase, nudge_steps=100, **options)  # type: ignore[arg-type]
    moved = gradient_of(set_up(algorithm, network_of("mlp"), lr=rate), *mini_batch())
    estimates = [
        gradient_of(set_up(EquilibriumPropagation(beta=beta, nudge_steps=100, free_steps=200), network_of("mlp")), *mini_batch())
        for beta in (0.2, -0.2)
    ]
    second = 0.5 if third_phase == "published" else 1.0
    weights = (1.0, second) if third_phase == "published" else (0.5, 0.5)
    expected = {name: weights[0] * estimates[0][name] + weights[1] * estimates[1][name] for name in moved}
    assert distance({name: value / rate for name, value in moved.items()}, expected) < 1e-3
    assert sum(weights) == share


@pytest.mark.parametrize("readout", [False, True])
def test_debug_mode_makes_one_ordinary_step(readout: bool) -> None:
    """Section 10, check 11; a readout gets its whole gradient from every small step (trap 9)."""
    loss = "cross_entropy" if readout else "mse"
    model = network_of("max", readout=readout)
    options = {"loss": loss, "beta": 0.3, "free_steps": 40, "nudge_steps": 5}
    algorithm = set_up(ContinualEquilibriumPropagation(debug=True, **options), model, lr=0.01)
    moved = {key: value / 0.01 for key, value in gradient_of(algorithm, *mini_batch()).items()}
    expected = gradient_of(set_up(EquilibriumPropagation(**options), network_of("max", readout=readout)), *mini_batch())
    hidden = [name for name in expected if not (readout and name.startswith("layers.2"))]
    assert distance({name: moved[name] for name in hidden}, {name: expected[name] for name in hidden}) < 2e-4
    if readout:
        assert 3.0 < float(moved["layers.2.bias"].norm() / expected["layers.2.bias"].norm()) < 7.0
    assert algorithm.learning_rate == 0.01


@given(decay=st.floats(1e-6, 1.0), rate=st.floats(1e-4, 1.0), steps=st.integers(1, 60))
@settings(deadline=None)
def test_converted_decays_shrink_weights_as_published(decay: float, rate: float, steps: int) -> None:
    assert (1.0 - rate * converted_decay(decay, rate, steps)) ** steps == pytest.approx(1.0 - 0.1 * decay, rel=1e-9)


def test_continual_decay_does_not_change_the_sum_of_small_steps() -> None:
    """Gradients are divided by the decay still to come, so a phase ends at ``(1 - 0.1 decay) w - rate * gradient``."""
    rates, decays = [1e-7] * 3, [0.01, 0.02, 0.0]
    model = network_of("max")
    algorithm = ContinualEquilibriumPropagation(
        beta=0.3, free_steps=30, nudge_steps=5, learning_rates=rates, weight_decays=decays
    )
    set_up(algorithm, model)
    before = parameters_of(model)
    algorithm.train_step(*mini_batch())
    for index, decay in enumerate(decays):
        after, weight = model.layers[index].weight.detach(), before[f"layers.{index}.weight"]
        assert torch.allclose(after, (1.0 - 0.1 * decay) * weight, atol=1e-5)
    # The decay moves the network during the phase, which has a small effect on the contrasts.


def test_cosine_then_constant_per_epoch() -> None:
    """Section 10, check 12: every group has its own rate; the schedule advances once per epoch, not once per update."""
    schedule = Schedule(scheduler=partial(CosineThenConstant, T_max=100, eta_min=1e-5))
    algorithm = ContinualEquilibriumPropagation(learning_rates=[0.25, 0.1, 0.05], free_steps=2, nudge_steps=2)
    set_up(algorithm, network_of("max"), schedule)
    rates = []
    for epoch in range(105):
        algorithm.epoch_start(epoch)
        if epoch < 2:
            algorithm.train_step(*mini_batch())
        rates.append([group["lr"] for group in algorithm.optimization.optimizer.param_groups])
        algorithm.optimization.optimizer.step()
        algorithm.epoch_end(epoch)
    first = [group_rates[0] for group_rates in rates]
    assert first[0] == 0.25
    assert first[1] == pytest.approx(0.249938, abs=1e-6)
    assert first[50] == pytest.approx(0.125005, abs=1e-6)
    assert first[99] == pytest.approx(7.1677e-5, rel=1e-4)
    assert first[100:] == [1e-5] * 5
    assert rates[100] == [1e-5] * 3
    assert rates[50][1] == pytest.approx(0.050005, abs=1e-6)


def test_decays_are_converted_at_the_nominal_rate() -> None:
    """A warm-up schedule has already changed the groups' rates before the first step."""
    warm_up = Schedule(scheduler=partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.1, total_iters=5))
    converted = []
    for schedule in (None, warm_up):
        algorithm = ContinualEquilibriumPropagation(free_steps=3, nudge_steps=4, weight_decays=[0.1, 0.2, 0.3])
        set_up(algorithm, network_of("max"), schedule, lr=0.05)
        converted.append([group["weight_decay"] for group in algorithm.optimization.optimizer.param_groups])
    assert algorithm.learning_rate == pytest.approx(0.005)
    assert converted[0] == converted[1] == [converted_decay(decay, 0.05, 4) for decay in (0.1, 0.2, 0.3)]


def settled(model: EnergyModel, inputs: Tensor) -> list[Tensor]:
    network = snapshot(model, "mse")
    return Relaxation(network, inputs).run(network.zeros(len(inputs)), 400)


def test_a_sample_at_its_target_has_no_gradient() -> None:
    """Section 10, check 13: mse, ``s_N = y`` at the fixed point."""
    model = network_of("max", activation="hard_sigmoid")
    with torch.no_grad():
        model.layers[-1].weight.mul_(1e-3)
        model.layers[-1].bias.copy_(torch.tensor([5.0, -5.0, -5.0]))
    inputs, _ = mini_batch()
    targets = torch.zeros(4, dtype=torch.long)
    assert torch.equal(settled(model, inputs)[-1], one_hot(targets, torch.zeros(4, 3, dtype=torch.float64)))
    gradients = gradient_of(set_up(EquilibriumPropagation(beta=0.5, free_steps=400, nudge_steps=10), model), inputs, targets)
    assert all(float(value.abs().max()) < 1e-9 for value in gradients.values())


@pytest.mark.parametrize(("name", "readout"), [("mlp", False), ("max", False), ("average", True), ("mixed", True)])
def test_a_nudge_of_zero_leaves_a_settled_network_where_it_is(name: str, readout: bool) -> None:
    """Section 10, check 13."""
    model, (inputs, targets) = network_of(name, readout=readout), mini_batch()
    network = snapshot(model, "cross_entropy" if readout else "mse")
    relaxation = Relaxation(network, inputs)
    free = relaxation.run(network.zeros(4), 400)
    hot = one_hot(targets, torch.zeros(4, 3, dtype=torch.float64))
    moved = {strength: relaxation.run(free, 20, Nudge(hot, torch.full((4, 1), strength).double())) for strength in (0.0, 0.1)}
    assert max(float((old - new).abs().max()) for old, new in zip(free, moved[0.0], strict=True)) < 1e-12
    assert max(float((old - new).abs().max()) for old, new in zip(free, moved[0.1], strict=True)) > 1e-4


def test_evaluation_uses_the_output_of_training_by_default() -> None:
    """Trap 6."""
    inputs, _ = mini_batch()
    model = network_of("max")
    plain = set_up(EquilibriumPropagation(loss="cross_entropy", free_steps=30), model)
    with plain.inference():
        linear = plain.predict(inputs)
    faithful = set_up(EquilibriumPropagation(loss="cross_entropy", free_steps=30, activate_output_in_evaluation=True), model)
    with faithful.inference():
        activated = faithful.predict(inputs)
    network = snapshot(model, "cross_entropy", activate_output=True)
    assert torch.allclose(activated, Relaxation(network, inputs).run(network.zeros(4), 30)[-1])
    assert float((linear - activated).abs().max()) > 0.01
    assert float(activated.detach().max()) < 1.0
    targets = torch.tensor([0, 1, 2, 0])
    assert torch.allclose(plain.evaluation_loss(linear, targets), functional.cross_entropy(linear, targets))


def test_a_warm_start_begins_where_the_last_mini_batch_ended() -> None:
    inputs, targets = mini_batch()
    algorithm = set_up(
        EquilibriumPropagation(beta=0.3, free_start="previous", free_steps=3, nudge_steps=2), network_of("max"), lr=1e-300
    )
    network = algorithm.network()
    relaxation = Relaxation(network, inputs)
    algorithm.train_step(inputs, targets)
    previous = [state.clone() for state in algorithm.previous]
    state = algorithm.state_dict()
    assert all(torch.equal(one, other) for one, other in zip(state["previous"], previous, strict=True))
    expected = LOSSES["mse"](network.scores(relaxation.run(previous, 3)), targets)
    assert float(algorithm.train_step(inputs, targets)["loss"]) == pytest.approx(float(expected), rel=1e-9)
    smaller = algorithm.train_step(inputs[:2], targets[:2])["loss"]
    cold = LOSSES["mse"](network.scores(Relaxation(network, inputs[:2]).run(network.zeros(2), 3)), targets[:2])
    assert float(smaller) == pytest.approx(float(cold), rel=1e-9)


@pytest.mark.parametrize("name", ["mlp", "average"])
@pytest.mark.parametrize("nudging", ["one_sided", "five_phase"])
def test_gradient_buffers_are_reused_without_traces_of_the_last_step(name: str, nudging: Any) -> None:
    options = {"beta": 0.3, "nudging": nudging, "free_steps": 5, "nudge_steps": 3}
    algorithm = set_up(EquilibriumPropagation(**options), network_of(name), lr=1e-300)
    algorithm.train_step(*mini_batch(seed=3))
    addresses = [buffer.data_ptr() for buffer in algorithm._buffers if buffer is not None]
    algorithm.train_step(*mini_batch())
    assert addresses == [buffer.data_ptr() for buffer in algorithm._buffers if buffer is not None] != []
    fresh = set_up(EquilibriumPropagation(**options), network_of(name), lr=1e-300)
    fresh.train_step(*mini_batch())
    for parameter, expected in zip(algorithm.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)


@pytest.mark.parametrize("algorithm", [EquilibriumPropagation, ContinualEquilibriumPropagation, BackpropThroughTime])
def test_steps_until_an_early_exit_are_reported(algorithm: Any) -> None:
    metrics = set_up(algorithm(free_steps=300, tolerance=1e-9), network_of("max")).train_step(*mini_batch())
    assert 5 <= float(metrics["free_steps"]) < 200


@pytest.mark.parametrize("algorithm", [EquilibriumPropagation, ContinualEquilibriumPropagation, BackpropThroughTime])
@pytest.mark.parametrize("readout", [False, True])
def test_dropout_trains_and_is_off_in_evaluation(algorithm: Any, readout: bool) -> None:
    model = network_of("max", readout=readout)
    model.keep_probabilities = (1.0, 0.7, 0.6, 0.8)[: model.num_states + 1]
    loss = "cross_entropy" if readout else "mse"
    training = set_up(algorithm(loss=loss, free_steps=10), model, lr=0.01)
    inputs, targets = mini_batch()
    first = [float(training.train_step(inputs, targets)["loss"]) for _ in range(3)]
    assert len(set(first)) == 3
    with training.inference():
        assert torch.equal(training.predict(inputs), training.predict(inputs))


@pytest.mark.parametrize("algorithm", [EquilibriumPropagation, ContinualEquilibriumPropagation, BackpropThroughTime])
@pytest.mark.parametrize("readout", [False, True])
def test_dropout_that_drops_nothing_trains_and_predicts_the_same(
    algorithm: Any, readout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 10, check 15, with masks of ones instead of the shortcut for networks without dropout."""

    def ones(self: EnergyAlgorithm, inputs: Tensor) -> Masks:
        shapes = self.model.state_shapes
        return Masks(torch.ones_like(inputs), tuple(inputs.new_ones(len(inputs), *shape) for shape in shapes))

    results = []
    for masked in (False, True):
        if masked:
            monkeypatch.setattr(EnergyAlgorithm, "draw_masks", ones)
        training = set_up(
            algorithm(loss="cross_entropy" if readout else "mse", free_steps=12), network_of("mixed", readout=readout)
        )
        moved = gradient_of(training, *mini_batch())
        with training.inference():
            results.append((moved, training.predict(mini_batch()[0])))
    assert distance(results[1][0], results[0][0]) < 1e-12
    assert torch.allclose(results[1][1], results[0][1], atol=1e-13)


def test_dropout_gradients_of_bptt_and_equilibrium_propagation_agree() -> None:
    """With the same masks, the symmetric estimate at masked states is the gradient of the masked dynamics' loss."""
    gradients = []
    for algorithm in (
        EquilibriumPropagation(loss="cross_entropy", beta=0.01, nudging="symmetric", free_steps=200, nudge_steps=150),
        BackpropThroughTime(loss="cross_entropy", free_steps=350, differentiated_steps=150),
    ):
        model = network_of("average", readout=True)
        model.keep_probabilities = (1.0, 0.7, 0.8, 0.8)
        gradients.append(gradient_of(set_up(algorithm, model), *mini_batch()))
    assert distance(*gradients) < 1e-3
