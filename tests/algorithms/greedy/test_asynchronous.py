"""Asynchronous greedy learning: its synchronous limit, passes and rates of every worker, exact resume."""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.schedule import Schedule
from altprop.models.greedy_cnn import GreedyCNN
from altprop.nn.heads.local import mlp_head
from altprop.nn.losses.output import ClampedCrossEntropy, clamped_cross_entropy
from altprop.problems import ConfigError, RunFailed
from tests.algorithms.harness import assert_equal

SHAPE = (1, 8, 8)
CLASSES = 3
STEPS = 3
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def set_up(
    algorithm: LocalLosses, epochs: int = 3, milestones: tuple[int, ...] = (), optimizer: Any = SGD, depth: int = 3
) -> Any:
    torch.manual_seed(0)
    model = GreedyCNN(depth=depth, width=4, downsample=(1,), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES).double()
    facts = {"steps_per_epoch": STEPS, "device": torch.device("cpu"), "seed": 0, "batch_size": 6}
    schedule = Schedule(scheduler=partial(torch.optim.lr_scheduler.MultiStepLR, milestones=list(milestones), gamma=0.2))
    total = algorithm.total_epochs(epochs, model)
    context = Context(input_shape=SHAPE, num_classes=CLASSES, total_epochs=total, **facts)  # type: ignore[arg-type]
    algorithm.setup(model, optimizer, schedule, context)
    return algorithm


def batch(seed: int, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def train(algorithm: LocalLosses, steps: int, first: int = 0) -> int:
    """Train for at most ``steps`` steps. Returns the number of steps made so far."""
    for step in range(first, first + steps):
        if algorithm.finished:
            return step
        if step % STEPS == 0:
            algorithm.epoch_start(step // STEPS)
        algorithm.train_step(*batch(step))
        if step % STEPS == STEPS - 1:
            algorithm.epoch_end(step // STEPS)
    return first + steps


def test_round_robin_with_one_batch_is_the_synchronous_form() -> None:
    """After the warm-up, a round of all workers equals one synchronous step on the same batch (sections 2.6 and 10)."""
    asynchronous = set_up(AsynchronousGreedy(order="round_robin", head=mlp_head))
    train(asynchronous, 2)
    synchronous = set_up(DecoupledGreedy(head=mlp_head, loss=ClampedCrossEntropy()))
    synchronous.model.load_state_dict(copy.deepcopy(asynchronous.model.state_dict()))
    synchronous.local_heads.load_state_dict(copy.deepcopy(asynchronous.local_heads.state_dict()))
    for mine, theirs in zip(synchronous.optimizers, asynchronous.optimizers, strict=True):
        mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    synchronous.epoch_start(0)
    for step in range(2, 6):
        inputs, targets = batch(step)
        mine, theirs = synchronous.train_step(inputs, targets), asynchronous.train_step(inputs, targets)
        assert_equal({name: mine[name] for name in sorted(mine)}, {name: theirs[name] for name in sorted(theirs)})
    assert_equal(synchronous.model.state_dict(), asynchronous.model.state_dict())
    assert_equal(synchronous.local_heads.state_dict(), asynchronous.local_heads.state_dict())


@pytest.mark.parametrize("options", [{}, {"buffer_size": 4, "slow_block": 2, "slowdown": 1.5}, {"buffer_size": 3, "max_uses": 2}])
def test_every_worker_makes_its_passes_at_its_rates(options: dict[str, Any]) -> None:
    algorithm = set_up(AsynchronousGreedy(**options), epochs=4, milestones=(2, 3))
    rates: list[list[float]] = [[], [], []]
    plain = algorithm.train_block

    def recorded(index: int, features: Tensor, targets: Tensor) -> Any:
        rates[index].append(algorithm.optimizers[index].learning_rate)
        return plain(index, features, targets)

    algorithm.train_block = recorded
    steps = train(algorithm, algorithm.context.total_epochs * STEPS)
    assert algorithm.finished
    assert steps >= 4 * STEPS
    for worker in range(3):
        assert rates[worker] == pytest.approx([0.1] * 2 * STEPS + [0.02] * STEPS + [0.004] * STEPS)
    before = copy.deepcopy(algorithm.model.state_dict())
    algorithm.train_step(*batch(0))
    assert_equal(algorithm.model.state_dict(), before)


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_size": 2, "max_uses": 1},
        {"buffer_size": 5, "max_uses": 1, "slow_block": 2, "slowdown": 1.5},
        {"buffer_size": 2, "max_uses": 2, "slow_block": 6, "slowdown": 2.0},
        {"buffer_size": 3, "max_uses": 1, "slow_block": 1, "slowdown": 3.0},
        {"buffer_size": 1, "max_uses": 1},
    ],
)
def test_the_bound_is_sufficient_when_buffers_run_empty(options: dict[str, Any]) -> None:
    """Every buffer loses mini-batches that are overwritten before they are used, and section 2.6 waits for the slowest worker."""
    algorithm = set_up(AsynchronousGreedy(**options, head=partial(mlp_head, mlp_layers=0)), epochs=10, depth=6)
    assert algorithm.passes == 10
    train(algorithm, algorithm.context.total_epochs * STEPS)
    assert algorithm.finished
    assert min(algorithm.clock.done) == 10


def test_frozen_workers_pass_features_on_unchanged() -> None:
    algorithm = set_up(AsynchronousGreedy(slow_block=3, slowdown=4.0), epochs=2)
    frozen_at: dict[str, Tensor] = {}
    for step in range(200):
        if algorithm.finished:
            break
        if step % STEPS == 0:
            algorithm.epoch_start(step // STEPS)
        algorithm.train_step(*batch(step))
        if algorithm.clock.is_frozen(0):
            state = algorithm.parts[0].state_dict()
            if frozen_at:
                assert_equal(dict(state), frozen_at)
            else:
                frozen_at = {name: value.clone() for name, value in state.items()}
    assert frozen_at
    assert algorithm.finished


def test_decay_resets_the_optimizer_and_restarts_the_warm_up() -> None:
    algorithm = set_up(AsynchronousGreedy(), milestones=(1,))
    train(algorithm, 2)
    state = algorithm.optimizers[1].optimizer.state
    assert state
    assert algorithm._end_pass(1)
    assert not algorithm.optimizers[1].optimizer.state
    assert algorithm.choice.warm_up == 0
    without = set_up(AsynchronousGreedy(restart_at_decay=False), milestones=(1,))
    train(without, 2)
    assert not without._end_pass(1)
    assert without.optimizers[1].optimizer.state
    assert without.optimizers[1].learning_rate == pytest.approx(0.02)


def test_only_full_batches_are_stored() -> None:
    algorithm = set_up(AsynchronousGreedy(buffer_size=3, order="round_robin"))
    algorithm.epoch_start(0)
    for count in (6, 4, 6):
        algorithm.train_step(*batch(count, count))
    assert [slot[0].shape[0] for slot in algorithm.buffers[0].slots if slot is not None] == [6, 6]


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_resumes_bit_exactly_with_full_buffers(steps: int) -> None:
    def build() -> Any:
        return set_up(AsynchronousGreedy(buffer_size=3, slow_block=1, slowdown=1.3), milestones=(1,))

    straight, interrupted, resumed = build(), build(), build()
    train(straight, 11)
    train(interrupted, steps)
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    for name, generator in interrupted.context.generators.items():
        resumed.context.generator(name).set_state(generator.get_state())
    if steps % STEPS:
        resumed.epoch_start(steps // STEPS)
    train(resumed, 11 - steps, first=steps)
    assert_equal(straight.state_dict(), resumed.state_dict())


@given(epochs=st.integers(1, 60), slowdown=st.floats(1, 4))
def test_passes_follow_from_the_bound(epochs: int, slowdown: float) -> None:
    algorithm = AsynchronousGreedy(slowdown=slowdown, slow_block=1)
    facts = {"steps_per_epoch": 3, "device": torch.device("cpu"), "seed": 0, "batch_size": 6}
    model = algorithm.model = nn.Identity()
    total = algorithm.total_epochs(epochs, model)
    algorithm.context = Context(input_shape=SHAPE, num_classes=3, total_epochs=total, **facts)  # type: ignore[arg-type]
    assert algorithm.passes == epochs or algorithm.total_epochs(algorithm.passes, model) == total


def test_a_run_that_ends_before_the_slowest_worker_fails() -> None:
    algorithm = set_up(AsynchronousGreedy())
    with pytest.raises(RunFailed, match="before every block has made its 3 passes"):
        algorithm.epoch_end(algorithm.context.total_epochs - 1)


def test_a_decay_in_every_pass_never_ends_with_legacy_termination() -> None:
    """A longer buffer would not help, so the failure names the option that does."""
    algorithm = set_up(AsynchronousGreedy(legacy_termination=True, restart_at_decay=True), milestones=tuple(range(100)))
    with pytest.raises(RunFailed, match=r"algorithm\.legacy_termination=false") as failure:
        train(algorithm, algorithm.context.total_epochs * STEPS)
    assert "buffer_size" not in str(failure.value)
    assert min(algorithm.clock.done) >= 3


def test_metrics_are_those_of_blocks_that_have_trained() -> None:
    """A block without a step has no metrics, so nothing is repeated once the deepest one is done."""
    algorithm = set_up(AsynchronousGreedy(slow_block=1, slowdown=4.0), epochs=4)
    frozen = 0
    for step in range(200):
        done = list(algorithm.clock.done)
        metrics = algorithm.train_step(*batch(step))
        if algorithm.finished:
            break
        assert ("loss" in metrics) == (f"block{algorithm.deepest + 1}/loss" in metrics)
        if done[2] >= 4:
            frozen += 1
            assert metrics.keys() <= {"block1/loss", "block1/accuracy", "block2/loss", "block2/accuracy"}
    assert algorithm.finished
    assert frozen > 1


def test_an_evaluation_is_due_when_all_workers_have_finished_a_round() -> None:
    algorithm = set_up(AsynchronousGreedy(buffer_size=3, slow_block=2, slowdown=2.0), epochs=4, milestones=(2,))
    rounds = []
    for step in range(200):
        algorithm.train_step(*batch(step))
        if algorithm.evaluation_due:
            rounds.append(algorithm.progress_metrics())
        if algorithm.finished:
            break
    assert [record["train/rounds"] for record in rounds] == [1, 2, 3]  # the last round ends the run, and with it comes a record
    assert all(min(record[f"train/block{block}/passes"] for block in (1, 2, 3)) == record["train/rounds"] for record in rounds)
    assert any(record["train/block1/passes"] > record["train/block2/passes"] for record in rounds)
    last = algorithm.progress_metrics()
    assert [last[f"train/block{block}/learning_rate"] for block in (1, 2, 3)] == pytest.approx([0.02] * 3)
    assert rounds[0]["train/block2/learning_rate"] == 0.1


def test_the_recorded_rate_is_that_of_the_last_step_of_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rate falls within a step, and has none to fall to once it is frozen."""
    algorithm = set_up(AsynchronousGreedy(slow_block=3, slowdown=3.0), epochs=3, milestones=(1, 2, 3))
    first = algorithm.optimizers[0]
    used: list[float] = []
    step = first.step
    monkeypatch.setattr(first, "step", lambda **kwargs: (used.append(first.learning_rate), step(**kwargs)))
    for index in range(200):
        algorithm.train_step(*batch(index))
        if used:
            assert algorithm.progress_metrics()["train/learning_rate"] == used[-1]
        if algorithm.finished:
            break
    assert algorithm.finished
    assert used[-1] > first.learning_rate  # the decay after its last step was not used


def test_a_round_has_the_means_of_each_block_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = set_up(AsynchronousGreedy(buffer_size=3, slow_block=2, slowdown=2.0), epochs=3)
    steps: list[list[tuple[float, float]]] = [[], [], []]
    expected: list[list[list[tuple[float, float]]]] = []
    work, begin = algorithm._work, algorithm.clock.begin

    def spied_work(worker: int, sample: Any) -> Any:
        result = work(worker, sample)
        if result is not None:
            steps[worker].append((float(result[0]), float(result[1])))
        return result

    def spied_begin(worker: int, decays: Any) -> bool:
        before = algorithm.clock.round_ended
        skip = begin(worker, decays)
        if algorithm.finished or (algorithm.clock.round_ended and not before):
            expected.append([list(values) for values in steps])
            for values in steps:
                values.clear()
        return skip

    monkeypatch.setattr(algorithm, "_work", spied_work)
    monkeypatch.setattr(algorithm.clock, "begin", spied_begin)
    records = []
    for index in range(200):
        algorithm.train_step(*batch(index))
        metrics = algorithm.progress_metrics()
        if algorithm.evaluation_due or algorithm.finished:
            records.append(metrics)
        else:
            assert not any("round_" in name for name in metrics)
        if algorithm.finished:
            break
    assert len(records) == len(expected) >= 3
    for record, blocks in zip(records, expected, strict=True):
        for block, values in enumerate(blocks, start=1):
            for position, name in enumerate(("loss", "accuracy")):
                found = record.get(f"train/block{block}/round_{name}")
                mean = sum(value[position] for value in values) / len(values) if values else None
                assert found == (None if mean is None else pytest.approx(mean))


def test_a_run_in_steps_that_is_too_short_for_a_pass_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    algorithm = set_up(AsynchronousGreedy())
    algorithm.context = dataclasses.replace(algorithm.context, total_epochs=2)
    algorithm.epoch_end(1)
    assert "before every block has made its" in caplog.text


@given(seed=st.integers(0, 99), minimum=st.sampled_from([1e-5, 0.1, 0.3]))
def test_clamped_loss_is_cross_entropy_above_the_minimum(seed: int, minimum: float) -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2).requires_grad_()
    targets = torch.arange(6) % 4
    probabilities = scores.detach().softmax(1)[torch.arange(6), targets]
    loss = clamped_cross_entropy(scores, targets, minimum)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(-probabilities.clamp(min=minimum).log().mean()))
    assert float(loss.detach()) <= -math.log(minimum) + 1e-12
    plain = scores.detach().clone().requires_grad_()
    nn.functional.cross_entropy(plain, targets).backward()
    for row in range(6):
        expected = torch.zeros(4).double() if probabilities[row] < minimum else plain.grad[row]  # type: ignore[index]
        assert torch.allclose(scores.grad[row], expected)  # type: ignore[index]


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"buffer_size": 0}, "algorithm.buffer_size"),
        ({"max_uses": 0}, "algorithm.max_uses"),
        ({"slowdown": 0.5, "slow_block": 1}, "algorithm.slowdown"),
        ({"slowdown": 1.5}, "algorithm.slowdown"),
        ({"slowdown": 1.5, "slow_block": 0}, "algorithm.slow_block"),
        ({"slowdown": 1.5, "slow_block": 1, "order": "round_robin"}, "algorithm.slowdown"),
    ],
)
def test_invalid_settings_are_problems(config: dict[str, Any], key: str) -> None:
    assert [problem.key for problem in AsynchronousGreedy.check(config, {})] == [key]


def test_slow_block_must_exist() -> None:
    with pytest.raises(ConfigError, match="3 blocks"):
        set_up(AsynchronousGreedy(slow_block=4, slowdown=2.0))
