"""The probe measures the right directions and does not affect training."""

from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.alignment_probe import ANGLE, NORM_RATIO, AlignmentProbe, layer_of
from altprop.algorithms.backprop import Backprop
from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.bptt import BackpropThroughTime
from altprop.algorithms.equilibrium_propagation.continual import ContinualEquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.theorem import check_gradients
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.models.energy import EnergyMLP
from altprop.models.mlp import MLP
from altprop.nn.estimators.straight_through import SaturatedStraightThrough
from altprop.nn.weights.base import WeightsRule
from tests.algorithms.harness import STEPS_PER_EPOCH, Case, Training, assert_equal
from tests.algorithms.registry import ALGORITHMS, ENERGY_MLP, HARD_MLP, SMALL_ENERGY_NET, SMALL_MLP, WEIGHTS_RULES

PLAIN_MLP = partial(SMALL_MLP, batch_norm=False)
STEPS = 2 * STEPS_PER_EPOCH + 2


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Probed(Training):
    """Trains with a probe in one of ``every`` steps."""

    def __init__(self, *arguments: Any, every: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.records: list[dict[str, float]] = []
        probe, plain, numbers = AlignmentProbe(self.algorithm), self.algorithm.train_step, count()

        def step(inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
            if next(numbers) % every:
                return plain(inputs, targets)
            metrics = probe.step(inputs, targets, plain)
            self.records.append(probe.alignments)
            return metrics

        self.algorithm.train_step = step  # type: ignore[method-assign]

    def angles(self, step: int = -1) -> dict[str, float]:
        return {name.removeprefix(ANGLE): value for name, value in self.records[step].items() if name.startswith(ANGLE)}

    def ratios(self, step: int = -1) -> dict[str, float]:
        return {name.removeprefix(NORM_RATIO): value for name, value in self.records[step].items() if name.startswith(NORM_RATIO)}


def assert_probing_changes_nothing(case: Case, rule: str, every: int = 1) -> None:
    """A run with a probe, interrupted and resumed, is identical to one without."""
    plain = Training(case, WEIGHTS_RULES[rule]()).run(STEPS)
    first = Probed(case, WEIGHTS_RULES[rule](), every=every).run(STEPS_PER_EPOCH + 1)
    state = first.state()
    second = Probed(case, WEIGHTS_RULES[rule](), every=every).restore(state).run(STEPS - STEPS_PER_EPOCH - 1)
    assert_equal(plain.state(), second.state())
    assert first.losses + second.losses == plain.losses
    assert any(first.records)
    assert any(second.records)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_probing_changes_nothing(name: str) -> None:
    assert_probing_changes_nothing(ALGORITHMS[name], "dense")


@pytest.mark.parametrize("rule", WEIGHTS_RULES)
def test_probing_changes_nothing_under_a_weights_rule(rule: str) -> None:
    assert_probing_changes_nothing(ALGORITHMS["backprop"], rule)


@pytest.mark.parametrize("rule", ["dense", "rigl"])
def test_probing_changes_nothing_with_dropout_and_batch_norm(rule: str) -> None:
    model = partial(MLP, hidden=(16, 12), units=partial(nn.Dropout, 0.3), batch_norm=True)
    assert_probing_changes_nothing(Case(lambda weights: Backprop(weights=weights), model), rule, every=3)


@pytest.mark.parametrize("rule", WEIGHTS_RULES)
def test_backprop_follows_the_gradient(rule: str) -> None:
    """With any weights rule, dropout and batch statistics, the angle is 0 and the ratio 1."""
    model = partial(MLP, hidden=(16, 12), units=partial(nn.Dropout, 0.3), batch_norm=True)
    case = Case(lambda weights: Backprop(weights=weights), model)
    training = Probed(case, WEIGHTS_RULES[rule](), dtype=torch.float64).run(STEPS_PER_EPOCH + 1)
    assert len(training.angles(0)) == 3
    for step in range(len(training.records)):
        assert all(value == pytest.approx(0, abs=1e-9) for value in training.angles(step).values())
        assert all(value == pytest.approx(1, abs=1e-12) for value in training.ratios(step).values())


def test_clipping_momentum_decay_and_slices_do_not_affect_the_direction() -> None:
    case = Case(lambda weights: Backprop(weights=weights), PLAIN_MLP, partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1))
    training = Probed(case, dtype=torch.float64, clip_norm=1e-3, accumulate=4).run(3)
    assert all(value == pytest.approx(0, abs=1e-6) for value in training.angles().values())
    assert all(value == pytest.approx(1, abs=1e-9) for value in training.ratios().values())


def test_a_known_angle() -> None:
    class Reversed(Backprop):
        """Doubles every gradient and reverses that of the classifier's weights and biases."""

        def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
            self.optimization.zero_grad()
            loss = self.loss(self.model(inputs), targets)
            loss.backward()
            for name, parameter in self.model.named_parameters():
                assert parameter.grad is not None
                parameter.grad *= -2.0 if layer_of(name) == last else 2.0
            self.optimization.step()
            return {"loss": loss.detach()}

    training = Probed(Case(lambda weights: Reversed(weights=weights), PLAIN_MLP), dtype=torch.float64)
    layers = list(dict.fromkeys(layer_of(name) for name, _ in training.algorithm.model.named_parameters()))
    last = layers[-1]
    training.run(1)
    assert training.angles() == pytest.approx({layer: 180.0 if layer == last else 0.0 for layer in layers}, abs=1e-9)
    assert training.ratios() == pytest.approx(dict.fromkeys(layers, 2.0))


@pytest.mark.parametrize(
    ("name", "deviating"),
    [
        ("target_propagation", 2),
        ("synthetic_gradients", 2),
        ("decoupled_greedy", 1),  # the last block has two layers: its own and the classifier
        ("delayed_gradients", 1),
        ("features_replay", 1),
    ],
)
def test_only_the_last_layers_of_other_algorithms_follow_the_gradient(name: str, deviating: int) -> None:
    angles = list(Probed(ALGORITHMS[name], dtype=torch.float64).run(5).angles().values())
    assert len(angles) == 3
    assert all(5 < angle < 175 for angle in angles[:deviating])
    assert angles[deviating:] == pytest.approx([0.0] * (3 - deviating), abs=1e-6)


def test_hard_units_are_compared_with_saturated_straight_through() -> None:
    """An algorithm with that estimator follows this reference exactly."""
    case = Case(lambda weights: TargetPropagation(weights=weights, estimator=SaturatedStraightThrough()), HARD_MLP)
    training = Probed(case, dtype=torch.float64).run(3)
    assert training.angles() == pytest.approx(dict.fromkeys(training.angles(), 0.0), abs=1e-9)
    assert len(training.angles()) == 3


def test_frozen_blocks_are_not_listed() -> None:
    training = Probed(ALGORITHMS["sequential_greedy"], dtype=torch.float64).run(ALGORITHMS["sequential_greedy"].epochs * 6 + 1)
    first, second = set(training.angles(0)), set(training.angles())
    assert len(first) == 1
    assert not first & second
    assert training.angles() == pytest.approx(dict.fromkeys(second, 0.0), abs=1e-6)  # the last block has the network's own loss


@pytest.mark.parametrize("order", ["synchronous", "red_black"])
@pytest.mark.parametrize("model", [ENERGY_MLP, partial(SMALL_ENERGY_NET, pools=("average",))])
def test_equilibrium_propagation_approaches_backpropagation_through_time(model: Any, order: Any) -> None:
    """With a smaller symmetric nudge and phases that converge, the estimate approaches the gradient."""

    def angles(beta: float, free_steps: int, nudge_steps: int) -> dict[str, float]:
        def algorithm(weights: WeightsRule) -> EquilibriumPropagation:
            return EquilibriumPropagation(
                beta=beta,
                nudging="symmetric",
                free_steps=free_steps,
                nudge_steps=nudge_steps,
                update_order=order,
                weights=weights,
            )

        return Probed(Case(algorithm, model), dtype=torch.float64).run(1).angles()

    rough, settled = angles(0.5, 8, 3), angles(0.01, 120, 120)
    assert rough.keys() == settled.keys()
    assert all(angle < 0.5 for angle in settled.values())
    assert all(settled[layer] < rough[layer] for layer in rough)


def test_backpropagation_through_all_of_time_is_the_reference() -> None:
    case = Case(lambda weights: BackpropThroughTime(free_steps=12, differentiated_steps=12, weights=weights), SMALL_ENERGY_NET)
    training = Probed(case, dtype=torch.float64).run(3)
    assert training.angles() == pytest.approx(dict.fromkeys(training.angles(), 0.0), abs=1e-6)
    assert training.ratios() == pytest.approx(dict.fromkeys(training.angles(), 1.0))


def test_the_probe_agrees_with_the_theorem_check() -> None:
    """The probe and the time series of ``task=check_gradients`` compute the same gradient."""
    free_steps = 30

    def algorithm(weights: WeightsRule) -> EquilibriumPropagation:
        return EquilibriumPropagation(beta=0.1, nudging="one_sided", free_steps=free_steps, nudge_steps=10, weights=weights)

    training = Training(Case(algorithm, ENERGY_MLP), dtype=torch.float64)
    inputs, targets = next(training.train_split.batches())
    reference = training.algorithm.reference_gradient(inputs, targets)
    with torch.no_grad():
        network = training.algorithm.network()  # type: ignore[attr-defined]
    check = check_gradients(network, inputs, targets, free_steps=free_steps, steps=free_steps, beta=0.1)
    for name, gradient in check.estimates(check.backward).items():
        assert torch.allclose(reference[name], gradient, rtol=1e-8, atol=1e-12), name


def test_updates_within_a_step_are_added() -> None:
    def algorithm(weights: WeightsRule) -> ContinualEquilibriumPropagation:
        return ContinualEquilibriumPropagation(beta=0.01, third_phase="symmetric", free_steps=80, nudge_steps=80, weights=weights)

    slow = partial(torch.optim.SGD, lr=1e-6)
    training = Probed(Case(algorithm, partial(EnergyMLP, hidden=(16,)), slow), dtype=torch.float64).run(1)
    assert all(angle < 1 for angle in training.angles().values())
    assert all(ratio == pytest.approx(1, abs=0.02) for ratio in training.ratios().values())
