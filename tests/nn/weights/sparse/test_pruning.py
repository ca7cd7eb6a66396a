"""Iterative pruning of a trained network, and masks and weights from other runs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.algorithms.schedule import Schedule, piecewise_constant
from altprop.nn.weights.base import Dense
from altprop.nn.weights.layers import weight_count, weight_layers
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.grow import RandomGrow
from altprop.nn.weights.sparse.prune import ThresholdPrune
from altprop.nn.weights.sparse.pruning import IterativePruning, event_fraction
from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors
from altprop.nn.weights.sparse.static import StaticSparse
from altprop.problems import ConfigError
from tests.nn.weights.training import Trained, active, masks, small_mlp, small_wrn, stored


@given(st.sampled_from(["exponential", "cubic"]), st.floats(0.0, 0.99), st.integers(1, 30))
def test_the_events_lead_to_the_target(profile, target, events):
    density = 1.0
    for event in range(events):
        fraction = event_fraction(profile, target, event, events)
        assert 0 <= fraction < 1
        density *= 1.0 - fraction
        if profile == "cubic":
            assert 1 - density == pytest.approx(target * (1 - (1 - (event + 1) / events) ** 3), abs=1e-9)
    assert density == pytest.approx(1 - target)


def test_published_cubic_fractions():
    half = [event_fraction("cubic", 0.5, event, 20) for event in range(20)]
    assert half[0] == pytest.approx(0.0713, abs=5e-5)
    assert half[-1] == pytest.approx(0.0001, abs=5e-5)
    assert half == sorted(half, reverse=True)
    most = [event_fraction("cubic", 0.9, event, 20) for event in range(20)]
    assert [round(most[event], 4) for event in (0, 7, 19)] == [0.1284, 0.1520, 0.0011]
    assert most.index(max(most)) == 7


def test_the_published_times():
    """Section 10.10: the ends of epochs 0, 2, ..., 38 of 48."""
    rule = IterativePruning(sparsity=0.9, iterations=20, every_epochs=2, start_epoch=0)
    assert [epoch for epoch in range(48) if rule.event(epoch) is not None] == list(range(0, 39, 2))
    rule = IterativePruning(sparsity=0.98, iterations=10, every_epochs=2, start_epoch=1)
    assert [epoch for epoch in range(39) if rule.event(epoch) is not None] == list(range(1, 20, 2))


def test_the_first_epoch_of_the_published_schedule_trains_nothing():
    """Section 10.10: the first event removes the smallest weights that the dense run ended with."""
    rates = [[0, 0.0], [1, 0.02], [15, 0.02], [25, 0.004], [35, 0.0008]]
    schedule = Schedule(scheduler=partial(piecewise_constant, values=rates))
    rule = IterativePruning(sparsity=0.9, iterations=20, dense=["classifier"])
    trained = Trained(rule, small_mlp(), epochs=48, schedule=schedule, weight_decay=5e-4)
    before = [parameter.detach().clone() for parameter in trained.model.parameters()]
    trained.steps(4)
    assert all(torch.equal(old, new) for old, new in zip(before, trained.model.parameters()))
    weights = [weight.detach().clone() for weight in stored(trained.model)]
    trained.step()
    assert any((mask == 0).any() for mask in masks(trained.model))
    for old, new, mask in zip(weights, stored(trained.model), masks(trained.model)):
        assert torch.equal(old * mask, new)
    trained.steps(5)
    assert all(not torch.equal(old, new) for old, new in zip(before, trained.model.parameters()))


def expected_count(size: int, target: float, events: int, profile: str) -> int:
    for event in range(events):
        size -= min(size, int(event_fraction(profile, target, event, events) * size) + 1)
    return size


def test_published_final_counts():
    """Trap 5: every event removes one more than the fraction."""
    sizes = [4608, *[9216] * 7, 18432, *[36864] * 7, 73728, *[147456] * 7]
    assert sum(expected_count(size, 0.9, 20, "cubic") for size in sizes) == 144_997
    assert expected_count(1000, 0.9, 10, "exponential") == 98


@pytest.mark.parametrize("profile", ["exponential", "cubic"])
@pytest.mark.parametrize("granularity", [2, 4])
def test_pruning_in_several_events(profile, granularity):
    rule = IterativePruning(sparsity=0.8, iterations=3, every_epochs=1, start_epoch=1, profile=profile, granularity=granularity)
    trained = Trained(rule, small_wrn(), epochs=5)
    sizes = active(trained.model)
    assert sizes == list(rule.weights.layout.sizes)
    trained.steps(5)
    assert active(trained.model) == sizes
    for event in range(3):
        before = [mask.clone() for mask in masks(trained.model)]
        trained.steps(4)
        assert all(torch.equal(old, new) for old, new in zip(before, masks(trained.model)))
        trained.step()
        assert all((new <= old).all() for old, new in zip(before, masks(trained.model)))
        assert all(not weight[mask == 0].any() for weight, mask in zip(stored(trained.model), masks(trained.model)))
        assert (active(trained.model) == [expected_count(size, 0.8, 3, profile) for size in sizes]) == (event == 2)
    final = active(trained.model)
    trained.steps(5)
    assert active(trained.model) == final
    counted = sum(weight_count(layer) for layer in weight_layers(trained.model))
    masked = sum(weight.numel() for weight in stored(trained.model))
    kept = sum(int(mask.sum()) for mask in masks(trained.model))
    assert rule.epoch_end(4)["density"].item() == pytest.approx((counted - masked + kept) / counted)


def test_a_network_is_complete_after_the_last_event():
    """Only then may an epoch be the best one. The same holds after a resume."""
    rule = IterativePruning(sparsity=0.8, iterations=2, every_epochs=2, start_epoch=1)
    trained = Trained(rule, small_mlp(), epochs=6)
    assert not rule.complete
    ends = [(trained.steps(4).step()["weights/complete"].item(), trained.algorithm.selectable) for _ in range(6)]
    assert ends == [(0, False), (0, False), (0, False), (1, True), (1, True), (1, True)]
    resumed = Trained(IterativePruning(sparsity=0.8, iterations=2, every_epochs=2, start_epoch=1), small_mlp(), epochs=6)
    resumed.algorithm.load_state_dict(trained.algorithm.state_dict())
    resumed.algorithm.epoch_start(5)
    assert resumed.algorithm.epoch_end(5)["weights/complete"].item() == 1
    assert resumed.algorithm.selectable


def test_the_cap_of_the_last_layer():
    rule = IterativePruning(sparsity=0.9, iterations=2, every_epochs=1, caps={"classifier": 0.5})
    Trained(rule, small_mlp())
    assert rule.targets[2] == 0.5
    assert sum((1 - t) * n for t, n in zip(rule.targets, (192, 96, 40))) == pytest.approx(0.1 * 328)
    with pytest.raises(ConfigError, match=r"leaves nothing active in features\.0\.linear, features\.1\.linear"):
        Trained(IterativePruning(sparsity=0.95, iterations=2, every_epochs=1, caps={"classifier": 0.5}), small_mlp())


def test_refuses_runs_that_are_too_short_and_caps_for_unknown_layers():
    with pytest.raises(ConfigError, match=r"trainer\.duration: 4 epochs; more than 4.*trainer\.duration=5ep"):
        Trained(IterativePruning(sparsity=0.9, iterations=3, every_epochs=2), small_mlp())
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.caps: 'fc' fits no layer"):
        Trained(IterativePruning(sparsity=0.9, iterations=1, caps={"fc": 0.5}), small_mlp())


# -- other runs ------------------------------------------------------------------------------------------------------------


def save(trained: Trained, path) -> str:
    torch.save({"format": 1, "algorithm": trained.algorithm.state_dict()}, path)
    return str(path)


def dynamic(**options) -> DynamicSparse:
    return DynamicSparse(
        sparsity=0.7,
        prune=ThresholdPrune(target=10),
        redistribute=ProportionalToSurvivors(),
        grow=RandomGrow(),
        period={0: 2},
        **options,
    )


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
def test_pruning_starts_from_the_weights_and_momentum_of_a_dense_run(build, tmp_path):
    dense = Trained(Dense(), build()).steps(7)
    path = save(dense, tmp_path / "last.pt")
    rule = IterativePruning(sparsity=0.8, iterations=2, every_epochs=1, dense=["stem", "shortcut"], weights_from=path)
    pruned = Trained(rule, build(), seed=3, weight_decay=5e-4)
    with torch.no_grad():
        for parameter in pruned.model.parameters():
            parameter.zero_()
    pruned.algorithm.epoch_start(0)
    own = {n.replace("parametrizations.weight.original", "weight"): p for n, p in pruned.model.named_parameters()}
    for name, parameter in dense.model.named_parameters():
        assert torch.equal(parameter, own[name])
        momentum = dense.optimizer.state[parameter]["momentum_buffer"]
        assert torch.equal(momentum, pruned.optimizer.state[own[name]]["momentum_buffer"])
        assert momentum.data_ptr() != pruned.optimizer.state[own[name]]["momentum_buffer"].data_ptr()
    assert pruned.optimizer.param_groups[0]["weight_decay"] == 5e-4
    for name, buffer in dense.model.named_buffers():
        assert torch.equal(buffer, pruned.model.get_buffer(name))


@pytest.mark.parametrize("granularity", [2, 4])
def test_mask_of_a_finished_run_with_its_initial_weights(granularity, tmp_path):
    """Section 10.13: every active weight is the stored initial one, even if it was inactive at that time."""
    source = Trained(dynamic(granularity=granularity), small_wrn())
    initial = save(source, tmp_path / "initial.pt")
    theta = [weight.detach().clone() for weight in stored(source.model)]
    started = [mask.clone() for mask in masks(source.model)]
    final = save(source.steps(15), tmp_path / "last.pt")
    with torch.no_grad():
        rule = StaticSparse(sparsity=0.7, granularity=granularity, mask_from=final, weights_from=initial)
        copy = Trained(rule, small_wrn(), seed=4)
        for parameter in copy.model.parameters():
            parameter.normal_()
        copy.algorithm.epoch_start(0)
    new_positions = 0
    for weight, mask, last, first, value in zip(stored(copy.model), masks(copy.model), masks(source.model), started, theta):
        assert torch.equal(mask, last)
        assert torch.equal(weight, value)
        fresh = (mask == 1) & (first == 0)
        new_positions += int(fresh.sum())
        assert not fresh.any() or weight[fresh].abs().min() > 0
    assert new_positions > 0
    assert copy.rule.weights.active == active(source.model)
    before = active(copy.model)
    assert active(copy.steps(10).model) == before


def test_a_resumed_run_does_not_need_the_run_it_started_from(tmp_path):
    source = save(Trained(dynamic(), small_mlp()).steps(9), tmp_path / "last.pt")
    options = {"mask_from": source}
    straight = Trained(StaticSparse(sparsity=0.7, **options), small_mlp()).steps(9)
    first = Trained(StaticSparse(sparsity=0.7, **options), small_mlp()).steps(4)
    (tmp_path / "last.pt").unlink()
    second = Trained(StaticSparse(sparsity=0.7, **options), small_mlp())
    second.algorithm.load_state_dict(first.algorithm.state_dict())
    second.algorithm.epoch_start(0)
    second.steps(5)
    assert all(torch.equal(a, b) for a, b in zip(stored(straight.model), stored(second.model)))


def test_refuses_checkpoints_that_do_not_fit(tmp_path):
    missing = Trained(StaticSparse(sparsity=0.7, mask_from=str(tmp_path / "no.pt")), small_mlp())
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.mask_from: no file .*no\.pt"):
        missing.step()
    (tmp_path / "truncated.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match="is not a readable checkpoint"):
        Trained(StaticSparse(sparsity=0.7, weights_from=str(tmp_path / "truncated.pt")), small_mlp()).step()
    dense = save(Trained(Dense(), small_mlp()).steps(2), tmp_path / "dense.pt")
    with pytest.raises(ConfigError, match=r"has no mask in the checkpoint; a sparse run of the same model"):
        Trained(StaticSparse(sparsity=0.7, mask_from=dense), small_mlp()).step()
    with pytest.raises(ConfigError, match="the same model"):
        Trained(StaticSparse(sparsity=0.7, weights_from=dense), small_wrn()).step()
    coarse = save(Trained(StaticSparse(sparsity=0.5, granularity=2), small_wrn()), tmp_path / "coarse.pt")
    with pytest.raises(ConfigError, match=r"has a mask of shape \[4, 4\]|has a mask of shape \[4, 16\]"):
        Trained(StaticSparse(sparsity=0.5, mask_from=coarse), small_wrn()).step()


@pytest.mark.parametrize("rule", [StaticSparse(sparsity=0.999), IterativePruning(sparsity=0.999, iterations=2, every_epochs=1)])
def test_a_layer_without_an_active_weight_is_refused(rule):
    with pytest.raises(
        ConfigError, match=r"^algorithm\.weights\.sparsity: leaves nothing active in [^\n]*classifier\.linear; a smaller"
    ):
        Trained(rule, small_mlp())
