"""Invariants of structure updates under all rules: a state machine over training steps."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from altprop.nn.weights.sparse.dynamic import DynamicSparse, new_weight_deviation
from altprop.nn.weights.sparse.grow import GradientGrow, RandomGrow
from altprop.nn.weights.sparse.prune import FractionPrune, SignChangePrune, ThresholdPrune
from altprop.nn.weights.sparse.record import MovementRecord
from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors, WithinTensor
from tests.nn.weights.training import Trained, active, batch, masks, small_mlp, small_wrn, stored

PRUNE = {
    "threshold": lambda: ThresholdPrune(target=15),
    "fraction": lambda: FractionPrune(fraction=0.2),
    "cosine": lambda: FractionPrune(fraction=0.3, decay="cosine"),
    "sign": lambda: SignChangePrune(reference="random"),
}
REDISTRIBUTE = {"within": WithinTensor, "proportional": ProportionalToSurvivors}
GROW = {"random": RandomGrow, "gradient": GradientGrow}


def make(prune: str, redistribute: str, grow: str, **options) -> DynamicSparse:
    settings = {"sparsity": 0.6, "period": {0: 1}, **options}
    return DynamicSparse(prune=PRUNE[prune](), redistribute=REDISTRIBUTE[redistribute](), grow=GROW[grow](), **settings)


class Machine(RuleBasedStateMachine):
    """Train, disturb the weights, move: the invariants hold after every step."""

    @initialize(
        prune=st.sampled_from(list(PRUNE)),
        redistribute=st.sampled_from(list(REDISTRIBUTE)),
        grow=st.sampled_from(list(GROW)),
        granularity=st.sampled_from([2, 4]),
        build=st.sampled_from([small_mlp, small_wrn]),
        state=st.sampled_from(["keep", "reset"]),
    )
    def begin(self, prune, redistribute, grow, granularity, build, state):
        granularity = 4 if prune == "sign" else granularity
        rule = make(prune, redistribute, grow, granularity=granularity, optimizer_state=state)
        self.across, self.reset, self.prune = redistribute == "proportional", state == "reset", prune
        self.trained = Trained(rule, build())
        self.initial = active(self.trained.model)
        self.powers = {1e-3 * 2.0**power for power in range(-60, 60)}

    @rule(size=st.floats(0.0, 0.3), seed=st.integers(0, 9))
    def disturb(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in stored(self.trained.model):
                weight.add_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype), alpha=size)

    @rule()
    def step(self):
        before = [mask.clone() for mask in masks(self.trained.model)]
        threshold = getattr(self.trained.rule.prune, "threshold", None)
        self.trained.step()
        after = masks(self.trained.model)
        pruned = [(old == 1) & (new == 0) for old, new in zip(before, after)]
        grown = [(old == 0) & (new == 1) for old, new in zip(before, after)]
        for weight, new, fresh in zip(stored(self.trained.model), after, grown):
            assert not weight[new == 0].any()
            assert not weight[fresh].any()
            if self.reset:
                momentum = self.trained.optimizer.state[weight]["momentum_buffer"]
                assert not momentum[new == 0].any()
                assert not momentum[fresh].any()
        moved = sum(int(gone.sum()) for gone in pruned)
        if threshold is not None:
            now = self.trained.rule.prune.threshold
            assert now in (threshold / 2, threshold, threshold * 2)
            if self.trained.rule.granularity == 4:
                assert (now < threshold) == (moved > 1.1 * 15)
                assert (now > threshold) == (moved < 0.9 * 15)

    @invariant()
    def conserved(self):
        if not hasattr(self, "trained"):
            return
        now = active(self.trained.model)
        assert list(now) == self.trained.rule.weights.active
        if self.across:
            # no unit is lost unless all tensors are full; the published clip may add a few
            assert sum(self.initial) <= sum(now) <= sum(self.initial) + 3 * len(now) * (self.trained.algorithm.step + 1)
        else:
            assert now == self.initial
        weights = self.trained.rule.weights
        assert torch.equal(weights.alive, weights.mask == 1)
        assert torch.equal(weights.active_units(), weights.alive.nonzero().view(-1))
        if self.prune == "threshold":
            assert self.trained.rule.prune.threshold in self.powers


Machine.TestCase.settings = settings(max_examples=12, stateful_step_count=10, deadline=None)
TestMachine = Machine.TestCase


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("prune", ["threshold", "fraction"])
def test_a_pruned_unit_does_not_come_back_in_the_same_update(prune, grow):
    """All free positions but three have just been pruned, so exactly those three can grow."""
    trained = Trained(make(prune, "within", grow, sparsity=0.1), small_mlp())
    weights = trained.rule.weights
    full = torch.ones_like(weights.mask)
    free = [offset + 1 for offset in weights.layout.offsets[:-1]]
    full[free] = 0.0
    weights.mask.copy_(full)
    weights.recount()
    before = weights.alive.clone()
    if prune == "threshold":
        trained.rule.prune.threshold = 0.05
    trained.step()
    grown = (weights.alive & ~before).nonzero().view(-1).tolist()
    assert grown == free
    assert (before & ~weights.alive).sum() > 3
    assert trained.algorithm.epoch_end(0)["weights/unplaced"] == (before & ~weights.alive).sum() - 3


def test_set_prunes_the_smallest_of_every_tensor():
    trained = Trained(make("fraction", "within", "random"), small_mlp())
    pruned = []
    original = trained.rule.prune.select
    trained.rule.prune.select = lambda weights, progress: (
        pruned.append((original(weights, progress), weights.scores().clone(), weights.alive.clone())) or pruned[-1][0]
    )
    trained.step()
    indices, scores, alive = pruned[0]
    flags = torch.zeros_like(alive).index_fill_(0, indices, True)
    for part, score, on in zip(*(trained.rule.weights.parts(flat) for flat in (flags, scores, alive))):
        assert part.sum() == int(0.2 * int(on.sum())) + 1
        assert not (part & ~on).any()
        assert score[part].max() <= score[on & ~part].min()


def test_deep_r_without_movement_prunes_nothing():
    """Section 10.7. After an update no active weight has the opposite of its recorded sign."""
    still = Trained(make("sign", "within", "random"), small_mlp(), lr=0.0, momentum=0.0, nesterov=False)
    still.rule.prune.signs = still.rule.weights.values().sign().clone()
    before = still.rule.weights.mask.clone()
    still.steps(4)
    assert torch.equal(still.rule.weights.mask, before)
    moving = Trained(make("sign", "within", "random"), small_mlp())
    for _ in range(8):
        moving.step()
        weights = moving.rule.weights
        assert not ((weights.values() * moving.rule.prune.signs < 0) & weights.alive).any()


def test_deep_r_leaves_dense_tensors_alone():
    rule = make("sign", "within", "random", sparsity={"linear": 0.6, "classifier": 0.0})
    trained = Trained(rule, small_mlp()).steps(5)
    assert active(trained.model)[-1] == 40
    assert active(trained.model)[0] < 192


def test_deep_r_prunes_the_same_weights_with_and_without_a_host_sync():
    rule = make("sign", "within", "random", sparsity={"linear": 0.6, "classifier": 0.0})
    trained = Trained(rule, small_mlp())
    for _ in range(6):
        trained.step()
        with torch.no_grad():
            for weight in stored(trained.model):
                weight.add_(torch.randn(weight.shape, generator=rule.generator, dtype=weight.dtype), alpha=0.2)
        twin = copy.deepcopy(rule.prune)
        expected = twin.flips(rule.weights).nonzero().view(-1)
        assert len(expected) > 0
        assert torch.equal(rule.prune.select(rule.weights, 0.0), expected)
        assert torch.equal(rule.prune.signs, twin.signs)


def test_the_record_counts_the_same_from_indices_and_from_booleans():
    """Also if one form reads a checkpoint that the other one wrote."""
    generator = torch.Generator().manual_seed(0)
    alive = torch.rand(200, generator=generator) < 0.5
    by_index, by_flag = MovementRecord(alive.float()), MovementRecord(alive.float())
    for number in range(6):
        pruned = alive & (torch.rand(200, generator=generator) < 0.3)
        grown = ~alive & (torch.rand(200, generator=generator) < 0.3)
        alive = (alive & ~pruned) | grown
        by_index.moved(pruned.nonzero().view(-1), grown.nonzero().view(-1), alive)
        by_flag.moved_on_device(pruned, grown)
        states = by_index.state_dict(), by_flag.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        if number == 3:
            by_index.load_state_dict(copy.deepcopy(states[1]))
            by_flag.load_state_dict(copy.deepcopy(states[0]))
    metrics = by_index.epoch_end(), by_flag.epoch_end()
    assert metrics[0] == metrics[1]
    assert 0 < metrics[0]["pruned_again"] < 1


def test_the_update_without_host_sync_has_the_same_invariants():
    """It runs on GPUs, but it works on the CPU as well."""
    trained = Trained(make("sign", "within", "random"), small_mlp())
    trained.rule.without_sync = True
    counts = active(trained.model)
    for _ in range(4):
        before = trained.rule.weights.alive.clone()
        trained.step()
        now = trained.rule.weights.alive
        assert active(trained.model) == counts
        for weight, mask in zip(stored(trained.model), masks(trained.model)):
            assert not weight[mask == 0].any()
        assert not trained.rule.weights.values()[now & ~before].any()
        assert (before & ~now).sum() == (now & ~before).sum()
    assert trained.rule.epoch_end(0)["updates"] == 4


def test_gradient_growth_uses_the_gradient_of_the_step():
    trained = Trained(make("fraction", "within", "gradient"), small_mlp())
    weights = trained.rule.weights
    twin = small_mlp()
    with torch.no_grad():
        for layer in weights.layers:
            twin.get_submodule(layer.name).weight.copy_(layer.module.weight)
    inputs, targets = batch(0)
    torch.nn.functional.cross_entropy(twin.train()(inputs), targets).backward()
    before = weights.alive.clone()
    trained.step()
    grown = weights.alive & ~before
    gradients = torch.cat([twin.get_submodule(name).weight.grad.abs().flatten() for name in weights.names])
    for fresh, gradient, on in zip(*(weights.parts(flat) for flat in (grown, gradients, before))):
        assert gradient[fresh].min() >= gradient[~on & ~fresh].max()
    assert weights.maskings[0].gradient is not None
    trained.rule.last_epoch = 0
    trained.step()
    assert weights.maskings[0].gradient is None


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
def test_redrawn_weights(build):
    trained = Trained(make("fraction", "within", "random", new_weights="init", dense=[]), build())
    trained.step()
    for weight, mask in zip(stored(trained.model), masks(trained.model)):
        inactive = weight.detach()[mask == 0]
        if len(inactive) > 1:
            assert inactive.abs().min() > 0
            assert 0.5 < float(inactive.square().mean().sqrt()) / new_weight_deviation(weight.shape) < 1.6
    assert new_weight_deviation((10, 300)) == pytest.approx(300**-0.5)
    assert new_weight_deviation((16, 8, 3, 3)) == pytest.approx((2 / 144) ** 0.5)


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_momentum_of_moved_weights(state):
    trained = Trained(make("fraction", "within", "random", optimizer_state=state), small_mlp()).steps(3)
    nonzero = [
        bool(trained.optimizer.state[weight]["momentum_buffer"][mask == 0].any())
        for weight, mask in zip(stored(trained.model), masks(trained.model))
    ]
    assert all(nonzero) == (state == "keep")


@pytest.mark.parametrize("prune", list(PRUNE))
def test_the_state_holds_everything_that_later_steps_need(prune):
    options = {"granularity": 4, "redistribute": "within" if prune == "sign" else "proportional", "grow": "random"}
    straight = Trained(make(prune, **options), small_mlp()).steps(17)
    first = Trained(make(prune, **options), small_mlp()).steps(7)
    state = copy.deepcopy(first.algorithm.state_dict())
    second = Trained(make(prune, **options), small_mlp(), seed=5)
    second.algorithm.load_state_dict(state)
    second.context.generator("weights").set_state(first.context.generator("weights").get_state())
    second.epoch = 1
    second.algorithm.epoch_start(1)
    second.steps(10)
    for one, other in zip(stored(straight.model), stored(second.model)):
        assert torch.equal(one, other)
    left, right = straight.rule.epoch_end(3), second.rule.epoch_end(3)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_metrics_of_movement():
    trained = Trained(make("fraction", "proportional", "random", period={0: 2}), small_mlp())
    ever = trained.rule.weights.alive.clone()
    moves = []
    for _ in range(5):
        before = trained.rule.weights.alive.clone()
        metrics = trained.step()
        now = trained.rule.weights.alive
        ever |= now
        if not torch.equal(before, now):
            moves.append((before & ~now, now & ~before))
    (first_gone, first_grown), (gone, grown) = moves  # after steps 2 and 4
    assert metrics["weights/updates"] == 2
    assert metrics["weights/pruned"] == (first_gone.sum() + gone.sum()) / 2
    assert metrics["weights/grown"] == (first_grown.sum() + grown.sum()) / 2
    assert metrics["weights/pruned_again"].item() == pytest.approx(int((gone & first_grown).sum()) / int(first_grown.sum()))
    assert metrics["weights/ever_active"].item() == pytest.approx(ever.float().mean().item())
    assert metrics["weights/unplaced"] == 0


@pytest.mark.parametrize(("stop_epoch", "last"), [("75%", 3), ("0%", 0), ("100%", 4), ("12.5%", 0), (2, 2)])
def test_the_stop_epoch_may_be_a_share_of_the_run(stop_epoch, last):
    weights = make("fraction", "within", "random", stop_epoch=stop_epoch)
    Trained(weights, small_mlp(), epochs=4)
    for weights.epoch in range(4):
        assert weights.moving == (weights.epoch < last)


@pytest.mark.parametrize("stop_epoch", ["75", "-1%", "101%", "never", -1])
def test_other_stop_epochs_are_refused(stop_epoch):
    (problem,) = DynamicSparse.check({"stop_epoch": stop_epoch, "period": [[0, 1]]}, {})
    assert problem.key == "algorithm.weights.stop_epoch"


@pytest.mark.parametrize("grow", [RandomGrow, GradientGrow])
@pytest.mark.parametrize("redistribute", [WithinTensor, ProportionalToSurvivors])
@pytest.mark.parametrize("prune", [lambda: FractionPrune(fraction=0.3), lambda: ThresholdPrune(target=3), SignChangePrune])
def test_growth_revives_layers_without_an_active_weight(prune, redistribute, grow, caplog):
    options = {"sparsity": {"linear": 0.9, "classifier": 0.999}, "period": {0: 1}, "dense": []}
    with caplog.at_level("WARNING", "altprop"):
        trained = Trained(DynamicSparse(prune=prune(), redistribute=redistribute(), grow=grow(), **options), small_mlp())
    assert "algorithm.weights.sparsity leaves nothing active in classifier.linear until the first update" in caplog.text
    before = active(trained.model)
    assert before[-1] == 0
    assert min(before[:-1]) > 0
    trained.steps(8)
    assert min(active(trained.model)) > 0
    assert sum(active(trained.model)) <= sum(before) + 1


def test_whole_filters_are_revived():
    rule = DynamicSparse(
        prune=FractionPrune(fraction=0.3),
        redistribute=WithinTensor(),
        grow=RandomGrow(),
        sparsity=0.9,
        period={0: 1},
        granularity=1,
    )
    trained = Trained(rule, small_wrn())
    assert 0 in active(trained.model)
    trained.steps(6)
    assert min(active(trained.model)) > 0
