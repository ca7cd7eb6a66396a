"""A mini-batch of one image under batch norm is refused before training, and only where torch would refuse it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from altprop.config.build import build
from altprop.config.compose import compose
from altprop.problems import ConfigError
from altprop.training.assembly import assemble
from altprop.training.plan import Plan
from altprop.training.single_images import MESSAGE, smallest_share

TINY = ("dataset.limit_train=5", "dataset.limit_test=2", "dataset.batch_size=4", "trainer.device=cpu", "trainer.duration=2ep")
STOPPED = [
    ["algorithm=backprop"],
    [
        "algorithm=decoupled_greedy",
        "model=convnet",
        "model.channels=[2,pool,2]",
    ],  # its local heads
    ["algorithm=sequential_greedy", "model.hidden=[4,4]"],
    ["algorithm=delayed_gradients", "model.hidden=[4,4]"],
    ["algorithm=predictive_coding"],
    ["trainer.limit_batches=2", "trainer.probe_every=1ep"],
    ["dataset.batch_size=1", "trainer.limit_batches=1"],
    ["algorithm/weights=binary", "algorithm.weights.batch_norm_batches=1"],
]
TRAINED = [
    ["model.batch_norm=false"],
    ["model=convnet", "model.channels=[2,pool]"],  # 14 x 14 values per channel
    ["dataset.drop_last=true"],
    ["trainer.limit_batches=1"],
    ["trainer.duration=1st"],
    ["dataset.limit_train=6"],
    ["trainer.accumulate=4", "dataset.limit_train=8"],  # slices of two images
]


def assembled(overrides: list[str]) -> Any:
    parts, _ = build(compose([*TINY, *overrides]))
    return assemble(parts, to_train=True)


@pytest.mark.parametrize("overrides", STOPPED, ids=" ".join)
def test_a_mini_batch_of_one_image_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        assembled(overrides)
    [problem] = refused.value.problems
    single = "dataset.batch_size=1" in overrides
    assert problem.fix == ("dataset.batch_size=2" if single else "dataset.drop_last=true")
    if not single:
        assembled([*overrides, problem.fix])


@pytest.mark.parametrize("overrides", TRAINED, ids=" ".join)
def test_everything_that_torch_can_train_is_trained(overrides: list[str]) -> None:
    run = assembled(overrides)
    run.algorithm.epoch_start(0)
    for inputs, targets in islice(run.data.train.batches(), min(run.plan.steps_per_epoch, run.plan.total_steps)):
        run.algorithm.train_step(inputs, targets)


def test_torch_refuses_what_is_refused() -> None:
    parts, _ = build(compose(list(TINY)))
    run = assemble(parts)
    run.algorithm.epoch_start(0)
    full, single = list(run.data.train.batches())
    run.algorithm.train_step(*full)
    with pytest.raises(ValueError, match=MESSAGE):
        run.algorithm.train_step(*single)


@pytest.mark.parametrize(
    ("images", "batch_size", "batches", "world_size", "share"),
    [(101, 100, 2, 1, 1), (101, 100, 1, 1, 100), (100, 100, 1, 1, 100), (102, 100, 2, 2, 1), (100, 4, 25, 4, 1), (9, 4, 3, 2, 2)],
)
def test_the_smallest_share_of_a_process(images: int, batch_size: int, batches: int, world_size: int, share: int) -> None:
    members = {"num_samples": images, "batch_size": batch_size, "__len__": lambda self: -(-images // batch_size)}
    train: Any = type("Train", (), members)()
    plan = Plan(batches, 10 * batches, batch_size, None, None)
    assert smallest_share(train, plan, world_size) == share
