"""Schedules made of several: warm-up, and the parts of SequentialLR."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

from altprop.algorithms.context import Context
from altprop.algorithms.schedule import RunningSchedule, Schedule, is_plain, warmup_cosine


def start(schedule: Schedule, epochs: int = 10) -> tuple[torch.optim.Optimizer, RunningSchedule]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    context = Context(
        steps_per_epoch=4,
        total_epochs=epochs,
        device=torch.device("cpu"),
        seed=0,
        input_shape=(1, 1, 1),
        num_classes=2,
        batch_size=1,
    )
    return optimizer, schedule.build(optimizer, context)


def rates(schedule: Schedule, epochs: int = 10) -> list[float]:
    """The rate that each epoch trains with."""
    optimizer, running = start(schedule, epochs)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        running.epoch_end()
    return [*values, optimizer.param_groups[0]["lr"]]


def sequence(*parts: Any, milestones: list[int]) -> Schedule:
    return Schedule(scheduler=partial(SequentialLR, schedulers=list(parts), milestones=milestones))


RISE = partial(LinearLR, start_factor=0.5, total_iters=2)
FALL = partial(CosineAnnealingLR, T_max="total")


def test_total_is_the_length_of_a_part() -> None:
    values = rates(sequence(RISE, FALL, milestones=[2]))
    assert values[:3] == pytest.approx([0.5, 0.75, 1.0])
    assert values[6] == pytest.approx(0.5)  # the middle of the eight epochs of the cosine
    assert values[10] == pytest.approx(0.0, abs=1e-12)


def test_the_parts_of_a_chain_act_together() -> None:
    schedule = Schedule(scheduler=partial(ChainedScheduler, schedulers=[RISE, FALL]))
    values = rates(schedule)
    assert values[0] == pytest.approx(0.5)
    assert values[10] == pytest.approx(0.0, abs=1e-12)


def test_the_number_of_milestones_is_checked() -> None:
    with pytest.raises(ValueError, match="2 schedulers need 1 milestones, not 2"):
        start(sequence(RISE, FALL, milestones=[2, 3]))


@pytest.mark.parametrize("warmup", [2, 0.2])
def test_warmup_cosine(warmup: float) -> None:
    values = rates(Schedule(scheduler=partial(warmup_cosine, warmup=warmup, total="total", start_factor=0.5)))
    assert values[:3] == pytest.approx([0.5, 0.75, 1.0])
    assert values[6] == pytest.approx(0.5)
    assert values[10] == pytest.approx(0.0, abs=1e-12)


def test_warmup_of_no_length_is_a_cosine() -> None:
    warm = rates(Schedule(scheduler=partial(warmup_cosine, warmup=0, total="total")))
    assert warm == pytest.approx(rates(Schedule(scheduler=FALL)))
    with pytest.raises(ValueError, match="negative"):
        start(Schedule(scheduler=partial(warmup_cosine, warmup=-1, total="total")))


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_sequence_resumes_exactly(epochs: int) -> None:
    """Also with a part whose state holds a function, which a checkpoint cannot contain."""
    falling = partial(LambdaLR, lr_lambda=lambda epoch: 0.9**epoch)
    schedule = sequence(RISE, falling, milestones=[2])
    optimizer, running = start(schedule)
    for _ in range(epochs):
        optimizer.step()
        running.epoch_end()
    state = running.state_dict()
    assert is_plain(state)
    resumed_optimizer, resumed = start(schedule)
    resumed.load_state_dict(state)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(6):
        optimizer.step()
        resumed_optimizer.step()
        running.epoch_end()
        resumed.epoch_end()
        assert resumed_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
