"""The binary rules: schedule, epoch ends, options, metrics and cost."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from altprop.nn.weights.base import Dense
from altprop.nn.weights.binary import sign as binary_sign
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.binary.iterative import IterativeBinary
from altprop.nn.weights.binary.orders import resolve_order
from altprop.nn.weights.binary.sign import sign
from altprop.nn.weights.layers import weight_layers
from altprop.problems import ConfigError
from tests.algorithms.harness import assert_equal
from tests.nn.weights.binary.driver import Driver, batches, is_weight, latents, network

ADAM = partial(torch.optim.Adam, lr=0.01)


def flags(rule):
    return [binarization.binary for binarization in rule.binarizations]


# -- hand-computed traces ------------------------------------------------------------------------------------------------------

# One weight, started at 0.6, and a bias at 0; the score is w x + b and the loss is the score itself, so that its gradient is x
# for the weight and 1 for the bias. SGD with rate 0.25 and momentum 0.5. Two steps per epoch, with these inputs:
INPUTS = [[1.0, 2.0], [8.0, -2.0], [1.0, 1.0]]
# Momenta of the weight: 1, 2.5, 9.25, 2.625, 2.3125, 2.15625; of the bias: 1, 1.5, 1.75, 1.875, 1.9375, 1.96875.
BIASES = [-0.625, -1.53125, -2.5078125]
# The loss of each step is sgn(w) x + b, with the w and b before it.
LEGACY_LOSSES = [1.0, 1.75, 7.375, 0.9375, -2.53125, -3.015625]
LEGACY_WEIGHTS = [1.0, -1.0, -1.0]  # sgn of 0.35, -1.3125, -1.578125: before each epoch's last update
EXACT_LOSSES = [1.0, 1.75, -8.625, 0.9375, -2.53125, -3.015625]
EXACT_WEIGHTS = [-0.275, -3.24375, -4.3609375]


@pytest.mark.parametrize(
    ("epoch_end", "losses", "weights"),
    [("legacy", LEGACY_LOSSES, LEGACY_WEIGHTS), ("exact", EXACT_LOSSES, EXACT_WEIGHTS)],
)
@pytest.mark.parametrize("rule", [Binary, partial(IterativeBinary, epochs_per_layer=1)])
def test_hand_computed_trace(rule, epoch_end, losses, weights):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        model[1].weight.fill_(0.6)
        model[1].bias.zero_()
    driver = Driver(
        rule(epoch_end=epoch_end),
        model,
        optimizer=partial(torch.optim.SGD, lr=0.25, momentum=0.5),
        epochs=3,
        steps=2,
        batches=lambda epoch: [(torch.full((1, 1, 1, 1), x, dtype=torch.float64), torch.zeros(1).long()) for x in INPUTS[epoch]],
        loss=lambda scores, targets: scores.sum(),
    )
    for epoch in range(3):
        driver.epoch(epoch)
        ((_, weight),) = latents(model)
        assert weight.item() == pytest.approx(weights[epoch], abs=1e-12)
        assert model[1].bias.item() == pytest.approx(BIASES[epoch], abs=1e-12)
    assert driver.losses == pytest.approx(losses, abs=1e-12)


# -- schedule ------------------------------------------------------------------------------------------------------------------


@given(order=st.permutations([1, 2, 3]), each=st.integers(1, 4), reverse=st.booleans())
@settings(max_examples=25, deadline=None)
def test_flags_are_a_function_of_the_epoch(order, each, reverse):
    rule = IterativeBinary(epochs_per_layer=each, order=list(order), reverse=reverse)
    driver = Driver(rule, network(), epochs=12)
    walked = order[::-1] if reverse else order
    seen = []
    for epoch in [*range(12), 5, 0, 11]:  # in any order
        rule.epoch_start(epoch)
        expected = set(walked[: epoch // each + 1])
        assert {place for place, flag in enumerate(flags(rule), start=1) if flag} == expected
        seen.append(flags(rule))
    assert seen[12] == seen[5]
    assert driver.rule is rule


def test_binary_is_all_layers_in_every_epoch():
    """Section 10, check 6: the schedule changes nothing."""
    rule = Binary()
    Driver(rule, network())
    for epoch in range(5):
        rule.epoch_start(epoch)
        assert flags(rule) == [True, True, True]


def test_sensitivity_run_has_one_binary_layer_in_all_epochs():
    """Section 10, check 6."""
    rule = IterativeBinary(epochs_per_layer=3, order=2)
    driver = Driver(rule, network(), epochs=3)
    for epoch in range(3):
        metrics = driver.epoch(epoch)
        assert flags(rule) == [False, True, False]
        assert int(metrics["weights/binary_layers"]) == 1


def test_only_the_final_form_may_be_the_best():
    """Section 9, trap 5. A sensitivity run ends with one binary layer."""
    ends_binary, sensitivity = IterativeBinary(epochs_per_layer=2), IterativeBinary(epochs_per_layer=6, order=2)
    for rule, expected in ((ends_binary, [False] * 4 + [True] * 2), (sensitivity, [True] * 6)):
        driver = Driver(rule, network(), epochs=6)
        selectable = []
        for epoch in range(6):
            driver.epoch(epoch)
            selectable.append(driver.algorithm.selectable)
        assert selectable == expected


def test_reverse_flag_on_forward_is_the_reverse_order():
    rules = [
        IterativeBinary(epochs_per_layer=1, order="forward", reverse=True),
        IterativeBinary(epochs_per_layer=1, order="reverse"),
    ]
    drivers = [Driver(rule, network()) for rule in rules]
    for epoch in range(3):
        for driver in drivers:
            driver.epoch(epoch)
    assert_equal(drivers[0].algorithm.state_dict(), drivers[1].algorithm.state_dict())


def test_nothing_is_reset_when_a_layer_becomes_binary():
    driver = Driver(IterativeBinary(epochs_per_layer=1, epoch_end="exact"), network(), optimizer=ADAM)
    driver.epoch(0)
    before = driver.algorithm.state_dict()
    driver.algorithm.epoch_start(1)
    assert_equal(driver.algorithm.state_dict()["model"], before["model"])
    assert_equal(driver.algorithm.state_dict()["optimizers"], before["optimizers"])


# -- float networks ------------------------------------------------------------------------------------------------------------


class NothingBinary(IterativeBinary):
    """Iterative training with an empty order."""

    def binary_at(self, epoch):
        return [False] * len(self.names)


def plain(state):
    return {name.replace("parametrizations.weight.original", "weight"): value for name, value in state.items()}


def test_exact_rule_with_an_empty_order_is_plain_training():
    """Section 10, check 9."""
    floating = Driver(Dense(), network())
    ours = Driver(NothingBinary(epochs_per_layer=1, epoch_end="exact"), network())
    for epoch in range(3):
        floating.epoch(epoch)
        ours.epoch(epoch)
    assert_equal(plain(ours.model.state_dict()), floating.model.state_dict())
    assert ours.losses == floating.losses


def test_legacy_rule_with_an_empty_order_drops_the_last_update_of_the_weights():
    """Section 10, check 9: in the first epoch, and it drops nothing else."""
    floating = Driver(Dense(), network())
    ours = Driver(NothingBinary(epochs_per_layer=1, epoch_end="legacy"), network())
    floating.epoch(0)
    ours.epoch(0)
    weights = {name.replace("parametrizations.weight.original", "weight") for name in ours.model.state_dict() if is_weight(name)}
    for name, value in plain(ours.model.state_dict()).items():
        expected = floating.before_last if name in weights else floating.model.state_dict()
        assert torch.equal(value, expected[name]), name


# -- the end of an epoch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Binary, partial(IterativeBinary, epochs_per_layer=1, order=[2, 3, 1])])
@pytest.mark.parametrize("optimizer", [ADAM, partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)])
def test_legacy(rule, optimizer):
    """Section 10, check 7."""
    driver = Driver(rule(epoch_end="legacy"), network(), optimizer=optimizer)
    inputs = batches(9)[0][0]
    for epoch in range(4):
        driver.epoch(epoch)
        binary = dict(zip(driver.rule.names, flags(driver.rule)))
        state = {name: value.clone() for name, value in driver.model.state_dict().items()}
        for name, value in state.items():
            if is_weight(name):
                before = driver.before_last[name]
                layer = name.split(".parametrizations")[0]
                assert torch.equal(value, sign(before) if binary[layer] else before), name
            else:
                assert torch.equal(value, driver.after_last[name]), name
        first, second = driver.scores(inputs), driver.scores(inputs)
        assert torch.equal(first, second)
        assert_equal(dict(driver.model.state_dict()), state)


@pytest.mark.parametrize("rule", [Binary, partial(IterativeBinary, epochs_per_layer=1, order=[2, 3, 1])])
def test_exact(rule):
    """Section 10, check 8: nothing changes, and the evaluation is that of a float network with the signs as weights."""
    driver = Driver(rule(epoch_end="exact"), network(), optimizer=ADAM)
    inputs = batches(9)[0][0]
    for epoch in range(3):
        driver.epoch(epoch)
        assert_equal(dict(driver.model.state_dict()), driver.after_last)
        floating = network()
        state = plain(driver.model.state_dict())
        for name, binary in zip(driver.rule.names, flags(driver.rule)):
            if binary:
                state[f"{name}.weight"] = sign(state[f"{name}.weight"])
        floating.load_state_dict(state)
        with torch.no_grad():
            expected = floating.eval()(inputs)
        assert torch.equal(driver.scores(inputs), expected)
        assert_equal(dict(driver.model.state_dict()), driver.after_last)


def test_small_rates_freeze_the_signs_only_under_legacy():
    """Section 10, check 16: Adam moves a weight by about the rate per step, so none that starts from +-1 crosses zero."""
    flips = {}
    for epoch_end in ("legacy", "exact"):
        driver = Driver(Binary(epoch_end=epoch_end), network(), optimizer=partial(torch.optim.Adam, lr=0.05))
        flips[epoch_end] = [int(driver.epoch(epoch)["weights/flips"] * 1000) for epoch in range(5)][1:]
    assert flips["legacy"] == [0, 0, 0, 0]
    assert all(count > 0 for count in flips["exact"])


def test_legacy_leaves_an_unfinished_epoch_alone():
    driver = Driver(Binary(epoch_end="legacy"), network())
    driver.epoch(0, last=2)
    before = {name: value.clone() for name, value in driver.model.state_dict().items()}
    driver.algorithm.epoch_end(0)
    assert_equal(dict(driver.model.state_dict()), before)


def test_biases_before_batch_norm_have_no_gradient():
    """Section 10, check 13."""
    driver = Driver(Binary(), network())
    driver.algorithm.epoch_start(0)
    inputs, targets = batches(0)[0]
    outputs = driver.model(inputs)
    nn.functional.cross_entropy(outputs, targets).backward()
    for name, module in driver.model.named_modules():
        if isinstance(module, nn.Linear):
            ours, theirs = module.bias.grad, module.parametrizations.weight.original.grad
            assert ours.abs().max() < 1e-12 * theirs.abs().max().clamp(min=1e-3), name
            with torch.no_grad():
                module.bias += 0.7
    torch.testing.assert_close(driver.model(inputs), outputs, rtol=0, atol=1e-9)


# -- options -------------------------------------------------------------------------------------------------------------------


def test_clipping_applies_to_the_latent_weights_of_binary_layers():
    driver = Driver(IterativeBinary(epochs_per_layer=2, clip=0.05), network(), optimizer=partial(torch.optim.SGD, lr=1.0))
    driver.epoch(0)
    values = [weight.abs().max().item() for _, weight in latents(driver.model)]
    assert values[0] <= 0.05
    assert min(values[1:]) > 0.05


def test_exact_zeros_become_ones_with_sign_zero_1():
    for zero, expected in ((0, 0.0), (1, 1.0)):
        model = network()
        driver = Driver(Binary(sign_zero=zero), model)
        driver.algorithm.epoch_start(0)
        with torch.no_grad():
            next(latents(model))[1][0, 0] = 0.0
        assert model.features[0].linear.weight[0, 0].item() == expected


@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_legacy_keeps_the_scale(scale):
    driver = Driver(Binary(epoch_end="legacy", scale=scale), network())
    driver.epoch(0)
    for name, weight in latents(driver.model):
        before = driver.before_last[f"{name}.parametrizations.weight.original"]
        rows = [weight] if scale == "layer" else weight
        means = [before.abs().mean()] if scale == "layer" else before.abs().mean(dim=1)
        for row, mean in zip(rows, means):
            torch.testing.assert_close(row.abs(), mean.expand_as(row))


def test_starts_from_the_weights_of_a_float_run(tmp_path):
    floating = Driver(Dense(), network(seed=5))
    floating.epoch(0)
    torch.save({"algorithm": floating.algorithm.state_dict()}, tmp_path / "last.pt")
    driver = Driver(IterativeBinary(epochs_per_layer=2, weights_from=str(tmp_path / "last.pt")), network(seed=0))
    driver.algorithm.epoch_start(0)
    assert_equal(plain(driver.model.state_dict()), floating.model.state_dict())
    # a resumed run does not need the file any more
    state = driver.algorithm.state_dict()
    (tmp_path / "last.pt").unlink()
    resumed = Driver(IterativeBinary(epochs_per_layer=2, weights_from=str(tmp_path / "last.pt")), network(seed=0))
    resumed.algorithm.load_state_dict(state)
    resumed.algorithm.epoch_start(0)
    assert_equal(resumed.algorithm.state_dict(), state)


def test_batch_norm_statistics_are_those_of_the_evaluated_weights():
    driver = Driver(Binary(epoch_end="legacy", batch_norm_batches=2), network())
    driver.epoch(0)
    inputs = [x for x, _ in batches(0)[-2:]]
    reference = network()
    state = plain(driver.model.state_dict())
    reference.load_state_dict(state)
    torch.optim.swa_utils.update_bn(inputs, reference)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-12, atol=1e-12, msg=name)
    assert not torch.allclose(state["features.0.norm.running_mean"], driver.after_last["features.0.norm.running_mean"])
    assert all(module.momentum == 0.1 for module in driver.model.modules() if isinstance(module, nn.BatchNorm1d))


@pytest.mark.parametrize(
    ("rule", "model"),
    [
        (Binary(), nn.Sequential(nn.Flatten(), nn.ReLU())),
        (Binary(batch_norm_batches=3), nn.Sequential(nn.Flatten(), nn.Linear(9, 4))),
    ],
)
def test_models_that_do_not_fit_are_refused(rule, model):
    with pytest.raises(ConfigError):
        Driver(rule, model)


@pytest.mark.parametrize("options", [{"clip": 0.0}, {"batch_norm_batches": -1}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        Binary(**options)


def test_zero_epochs_per_layer_are_refused():
    with pytest.raises(ValueError, match="epochs_per_layer"):
        IterativeBinary(epochs_per_layer=0)


def test_legacy_needs_whole_epochs():
    config = {"epoch_end": "legacy"}
    assert not list(Binary.check(config, {"trainer": {"duration": "3ep"}}))
    (problem,) = Binary.check(config, {"trainer": {"duration": "500st"}})
    assert problem.key == "algorithm.weights.epoch_end"


# -- metrics -------------------------------------------------------------------------------------------------------------------


def test_metrics():
    """The metrics of section 7."""
    rule = IterativeBinary(epochs_per_layer=1, order=[3, 1, 2])
    driver = Driver(rule, network())
    initial = {name: weight.clone() for name, weight in latents(driver.model)}
    metrics = {name.removeprefix("weights/"): float(value) for name, value in driver.epoch(0).items()}
    names = rule.names
    assert [metrics[f"binary/{name}"] for name in names] == [0, 0, 1]
    assert metrics["binary_layers"] == 1
    assert metrics["binary_weights"] == 20
    assert metrics["fully_binary"] == 0
    for name, weight in latents(driver.model):
        assert metrics[f"flips/{name}"] == pytest.approx(float((sign(weight) != sign(initial[name])).double().mean()))
        assert metrics[f"latent_min/{name}"] == pytest.approx(float(weight.min()))
        assert metrics[f"latent_max/{name}"] == pytest.approx(float(weight.max()))
    assert metrics["flips"] == metrics[f"flips/{names[2]}"]
    assert metrics["max"] == 1.0
    assert metrics["min"] == -1.0
    driver.epoch(1)
    assert float(driver.epoch(2)["weights/fully_binary"]) == 1


def test_zeros_are_counted():
    driver = Driver(Binary(), network())
    driver.algorithm.epoch_start(0)
    with torch.no_grad():
        for _, weight in latents(driver.model):
            weight[0, :2] = 0.0
    metrics = driver.algorithm.epoch_end(0)
    assert int(metrics["weights/zeros"]) == 6
    assert int(metrics[f"weights/zeros/{driver.rule.names[0]}"]) == 2


# -- cost ----------------------------------------------------------------------------------------------------------------------


def test_signs_are_taken_once_per_step_and_once_per_evaluation(monkeypatch):
    """This is the rule's only work in a step that does not end an epoch: weights are not copied."""
    driver = Driver(IterativeBinary(epochs_per_layer=1, epoch_end="legacy"), network())
    driver.epoch(0)
    driver.algorithm.epoch_start(1)  # two of three layers are binary
    calls = []
    original = binary_sign.binarized
    monkeypatch.setattr(binary_sign, "binarized", lambda *arguments: calls.append(1) or original(*arguments))
    driver.algorithm.train_step(*batches(1)[0])
    assert len(calls) == 2
    assert driver.rule.before_last_update == []
    calls.clear()
    with driver.algorithm.inference():
        for inputs, _ in batches(2):
            driver.algorithm.predict(inputs)
    assert len(calls) == 2


def test_dense_layers_stay_in_floating_point():
    driver = Driver(Binary(dense=["first", "classifier"]), network())
    every = [layer.name for layer in weight_layers(network())]
    assert driver.algorithm.weights.names == every[1:-1]
    driver.epoch(0)
    for layer in weight_layers(driver.model):
        assert bool((layer.weight.abs() == 1).all()) == (layer.name in every[1:-1])
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.dense: 'nothing' fits no layer"):
        Driver(Binary(dense=["nothing"]), network())
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.dense: \[.*\] leaves no layer"):
        Driver(Binary(dense=["linear", "conv"]), network())


@pytest.mark.parametrize(
    ("order", "expected"), [("reverse", (2, 1)), (2, (2, 1)), ([1, 2], (1, 2)), ([4, 3, 2, 1], (2, 1)), ([1, 3, 2, 4], (2, 1))]
)
def test_orders_leave_dense_layers_out(order, expected):
    layers = ["a", "b", "c", "d"]
    assert resolve_order(order, ["b", "c"], torch.Generator(), "order", layers) == expected


def test_published_orders_leave_dense_layers_out():
    layers = [str(place) for place in range(1, 6)]
    order = resolve_order("vgg5_ascend", layers[1:-1], torch.Generator(), "order", layers)
    assert [layers[1:-1][place - 1] for place in order] == ["4", "3", "2"]
