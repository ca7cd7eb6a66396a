"""Replay buffers and the choice of workers, compared with literal implementations of the specification."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from altprop.algorithms.greedy.replay_buffer import ReplayBuffer
from altprop.algorithms.greedy.worker_choice import WorkerChoice, WorkerClock, expected_passes, worker_probabilities


class BufferMachine(RuleBasedStateMachine):
    """Any sequence of writes and reads."""

    @initialize(capacity=st.integers(0, 6), strict=st.booleans(), max_uses=st.sampled_from([0, 1, 2, math.inf]))
    def start(self, capacity: int, strict: bool, max_uses: float) -> None:
        self.buffer = ReplayBuffer(capacity, strict)
        self.capacity, self.strict, self.max_uses = max(1, capacity), strict, max_uses
        self.written: list[int] = []
        self.counts: dict[int, int] = {}
        self.uses: dict[int, int] = {}

    def stored(self) -> list[int]:
        """Return the numbers of the batches in the buffer, oldest first."""
        return self.written[-self.capacity :]

    @rule()
    def add(self) -> None:
        number = len(self.written)
        self.buffer.add(torch.full((2, 3), float(number)), torch.full((2,), number))
        self.written.append(number)
        self.counts[number] = 1
        self.uses[number] = 0

    @rule()
    def get(self) -> None:
        sample = self.buffer.get(self.max_uses)
        usable = [number for number in self.stored() if self.counts[number] <= self.max_uses]
        if not usable:
            assert sample is None
            return
        assert sample is not None, "a batch is left to use"
        features, targets = sample
        number = int(targets[0])
        assert bool((features == number).all()), "labels belong to their features"
        assert number in usable
        if self.capacity == 1:
            assert number == self.stored()[-1]
            return
        least = min(self.counts[stored] for stored in self.stored())
        tied = [stored for stored in self.stored() if self.counts[stored] == least]
        expected = tied[-1]
        if not self.strict and len(self.written) >= self.capacity and tied[0] == self.stored()[0]:
            # as published, the oldest batch of a full buffer counts as the most recent; if the ring's pointer is at slot 0, slot
            # 0 has key 0, the largest key
            expected = tied[0]
        assert number == expected
        self.counts[number] += 1
        self.uses[number] += 1
        assert self.uses[number] <= self.max_uses

    @precondition(lambda self: self.written)
    @rule()
    def save_and_load(self) -> None:
        other = ReplayBuffer(self.capacity, self.strict)
        other.load_state_dict(self.buffer.state_dict(), torch.device("cpu"))
        self.buffer = other

    @invariant()
    def contains_the_newest(self) -> None:
        numbers = sorted(int(slot[1][0]) for slot in self.buffer.slots if slot is not None)
        assert numbers == self.stored()


BufferMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBuffer = BufferMachine.TestCase


def test_partly_filled_buffer_returns_the_newest() -> None:
    buffer = ReplayBuffer(5)
    assert buffer.get() is None
    for number in range(4):
        buffer.add(torch.zeros(1), torch.tensor([number]))
    order = [int(buffer.get()[1]) for _ in range(4)]  # type: ignore[index]
    assert order == [3, 2, 1, 0]


def test_full_buffer_treats_its_oldest_batch_as_the_newest_unless_strict() -> None:
    for strict, expected in ((False, [2, 5, 4, 3]), (True, [5, 4, 3, 2])):
        buffer = ReplayBuffer(4, strict)
        for number in range(6):
            buffer.add(torch.zeros(1), torch.tensor([number]))
        assert [int(buffer.get()[1]) for _ in range(4)] == expected  # type: ignore[index]


@given(workers=st.integers(2, 9), noise=st.floats(0, 0.95), data=st.data())
def test_probabilities_are_those_of_the_specification(workers: int, noise: float, data: st.DataObject) -> None:
    slow = data.draw(st.integers(0, workers - 1))
    probabilities = worker_probabilities(workers, slow, 1 / (1 - noise))
    expected = [(1 - noise if worker == slow else 1) / (workers - noise) for worker in range(workers)]
    assert probabilities == pytest.approx(expected)
    assert sum(probabilities) == pytest.approx(1)


def test_picks_have_the_expected_frequencies() -> None:
    choice = WorkerChoice(worker_probabilities(4, 1, 2.0), "random", torch.Generator().manual_seed(0))
    picks = [choice.next() for _ in range(8 + 14_000)][8:]
    shares = [picks.count(worker) / len(picks) for worker in range(4)]
    assert shares == pytest.approx([2 / 7, 1 / 7, 2 / 7, 2 / 7], abs=0.015)


@given(workers=st.integers(1, 6))
def test_warm_up_and_round_robin(workers: int) -> None:
    choice = WorkerChoice([1 / workers] * workers, "round_robin", torch.Generator())
    warm_up = [worker for worker in range(workers) for _ in range(2)]
    turns = list(range(workers))
    assert [choice.next() for _ in range(4 * workers)] == warm_up + turns + turns
    choice.restart()
    assert [choice.next() for _ in range(2 * workers)] == warm_up


MANY = 1500

Event = tuple[int, bool, bool]
"""The worker, whether it made a step, and whether it was frozen."""


def literal_machine(
    workers: int, nepochs: int, epochdecay: int, batches: int, pick: Callable[[], int], random_order: bool
) -> Iterator[Event | str]:
    """Specification, section 2.6, literally, with its flag that a decay overwrites. Evaluations are yielded as text."""
    iterations, trackers = [0] * workers, [-1] * workers
    fin, frozen = [False] * workers, [False] * workers
    epoch, running, skip, counter, last = -1, True, False, 0, -1
    warming = True
    while running:
        if warming:
            n = counter // 2
            warming = counter <= 2 * (workers - 1)
            counter += 1
        elif random_order:
            n = pick()
        else:
            n = (last + 1) % workers
        last = n
        if fin[n]:
            if all(tracker >= epoch for tracker in trackers):
                if epoch > 0:
                    yield "evaluate"
                if epoch > nepochs:
                    running = False
                epoch += 1
            if trackers[n] > 0 and trackers[n] % epochdecay == 0:
                if epoch > 0:
                    skip = True
                counter, warming = 0, True
                running = True
            trackers[n] += 1
            if trackers[n] >= nepochs:
                frozen[n] = True
            fin[n] = False
        if skip:
            skip = False
            yield (n, False, frozen[n])
            continue
        iterations[n] = (iterations[n] + 1) % batches
        if iterations[n] == 0:
            fin[n] = True
        yield (n, True, frozen[n])


def our_machine(
    workers: int, nepochs: int, epochdecay: int, batches: int, pick: Callable[[], int], random_order: bool, legacy: bool = True
) -> Iterator[Event]:
    """The same with WorkerChoice and WorkerClock. Decays every ``epochdecay`` passes from pass ``epochdecay + 2`` on."""
    choice = WorkerChoice([1 / workers] * workers, "random" if random_order else "round_robin", torch.Generator())
    clock = WorkerClock(workers, batches, nepochs + 1, legacy_termination=legacy)
    passes = [0] * workers

    def decays(worker: int) -> bool:
        passes[worker] += 1
        if passes[worker] - 2 > 0 and (passes[worker] - 2) % epochdecay == 0:
            choice.restart()
            return True
        return False

    while not clock.finished:
        if choice.warm_up is None and random_order:
            worker = choice.last = pick()
        else:
            worker = choice.next()
        skip = clock.begin(worker, decays)
        yield (worker, not skip, clock.is_frozen(worker))
        if not skip:
            clock.end(worker)


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 4),
    nepochs=st.integers(1, 6),
    epochdecay=st.integers(2, 5),
    batches=st.integers(2, 4),
    seed=st.integers(0, 1000),
    random_order=st.booleans(),
)
def test_workers_follow_the_published_state_machine(workers, nepochs, epochdecay, batches, seed, random_order) -> None:
    def picks() -> Callable[[], int]:
        generator = torch.Generator().manual_seed(seed)
        return lambda: int(torch.randint(workers, (), generator=generator))

    settings_ = (workers, nepochs, epochdecay, batches)
    # a decay in the iteration that should end the published machine keeps it running, sometimes forever
    literal = islice(literal_machine(*settings_, picks(), random_order), MANY)
    published = [event for event in literal if not isinstance(event, str)]
    ours = list(islice(our_machine(*settings_, picks(), random_order), len(published)))
    assert ours == published
    clean = list(islice(our_machine(*settings_, picks(), random_order, legacy=False), MANY))
    assert clean == published[: len(clean)]
    assert all(frozen for _, _, frozen in published[len(clean) :]), "the published machine only continues to evaluate"
    if len(clean) == MANY:
        return
    for worker in range(workers):
        steps = sum(worked and not frozen for who, worked, frozen in clean if who == worker)
        assert steps == (nepochs + 1) * batches


def test_clock_restores_its_state() -> None:
    clock = WorkerClock(2, 2, 3)
    for worker in (0, 1, 0, 1, 0):
        clock.begin(worker, lambda _: False)
        clock.end(worker)
    other = WorkerClock(2, 2, 3)
    other.load_state_dict(clock.state_dict())
    assert other.state_dict() == clock.state_dict()
    assert clock.done == [1, 0]


def test_expected_passes_when_buffers_run_empty() -> None:
    """A buffer of M batches that are used once, written as fast as it is read, is empty once in M + 1 times."""
    alike = worker_probabilities(2, None, 1.0)
    for capacity in (2, 5, 30):
        assert expected_passes(alike, capacity, 1) == pytest.approx((capacity + 1) / capacity)
        assert expected_passes(alike, capacity, math.inf) == 1.0
        assert expected_passes(alike, capacity, 10**6) == pytest.approx(1.0)
    assert expected_passes(alike, 1, 1) == 1.0
    slow = worker_probabilities(6, 3, 2.5)
    assert expected_passes(slow, 4, math.inf) == pytest.approx(2.5)
    assert 2.5 < expected_passes(slow, 4, 1) < 4
    deep = [expected_passes(worker_probabilities(depth, None, 1.0), 3, 1) for depth in range(2, 10)]
    assert deep == sorted(deep)
