"""On the meta device: nothing in a step waits for the device, no CPU tensor is mixed in, and restored states are on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from altprop.algorithms.alignment_probe import AlignmentProbe
from altprop.training.evaluation import evaluate
from altprop.training.meter import Meter
from tests.algorithms.harness import STEPS_PER_EPOCH, Training
from tests.algorithms.registry import ALGORITHMS, WEIGHTS_RULES
from tests.device import META, meta, no_transfers  # noqa: F401 - a fixture

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
NO_COPIES = pytest.mark.filterwarnings("ignore:.*which is a no-op")
"""For states that are loaded into modules on the meta device, which hold no values."""
pytestmark = pytest.mark.usefixtures("meta")


def train(training: Training, steps: int = 2, epoch: int = 0) -> Training:
    """Take some steps, refusing transfers."""
    algorithm = training.algorithm
    batches = list(training.train_split.batches(epoch))[:steps]
    algorithm.epoch_start(epoch)
    for batch in batches:
        with no_transfers():
            metrics = algorithm.train_step(*batch)
        assert all(value.device == META for value in metrics.values())
    return training


@pytest.mark.parametrize("rule", WEIGHTS_RULES)
@every_algorithm
def test_a_step_stays_on_the_device(name: str, rule: str) -> None:
    train(Training(ALGORITHMS[name], WEIGHTS_RULES[rule](), device=META))


@every_algorithm
def test_clipping_and_slices_stay_on_the_device(name: str) -> None:
    capabilities = ALGORITHMS[name].algorithm(WEIGHTS_RULES["dense"]()).capabilities
    options: dict[str, Any] = {"clip_norm": 1.0} if capabilities.clip else {}
    train(Training(ALGORITHMS[name], device=META, accumulate=2 if capabilities.accumulate else 1, **options), steps=1)


@NO_COPIES
@every_algorithm
def test_a_restored_state_is_on_the_device(name: str) -> None:
    """Whatever a checkpoint holds was read to the CPU; the steps and the epoch's end after it mix nothing."""
    saved = Training(ALGORITHMS[name]).run(STEPS_PER_EPOCH + 1).state()
    training = Training(ALGORITHMS[name], device=META)
    training.algorithm.load_state_dict(saved["algorithm"])
    train(training, epoch=1).algorithm.epoch_end(1)
    training.algorithm.state_dict()


@NO_COPIES
@pytest.mark.parametrize("rule", WEIGHTS_RULES)
def test_a_restored_weights_rule_is_on_the_device(rule: str) -> None:
    saved = Training(ALGORITHMS["backprop"], WEIGHTS_RULES[rule]()).run(STEPS_PER_EPOCH + 1).state()
    training = Training(ALGORITHMS["backprop"], WEIGHTS_RULES[rule](), device=META)
    training.algorithm.load_state_dict(saved["algorithm"])
    train(training, epoch=1)


@every_algorithm
def test_the_probe_takes_its_gradient_on_the_device(name: str) -> None:
    training = Training(ALGORITHMS[name], device=META)
    probe = AlignmentProbe(training.algorithm)
    training.algorithm.epoch_start(0)
    batch = next(training.train_split.batches())
    with no_transfers(), probe._recording() as updates:
        probe._reference(*batch)
        training.algorithm.train_step(*batch)
    assert all(update.device == META for update in updates.values())


@every_algorithm
def test_an_evaluation_reads_the_device_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = train(Training(ALGORITHMS[name], device=META), steps=1)
    read: list[Tensor] = []

    def tolist(values: Tensor) -> list[float]:
        read.append(values)
        return [0.0] * len(values)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    batches = list(training.test_split.batches())
    monkeypatch.setattr(training.test_split, "batches", lambda: batches)
    with no_transfers():
        metrics = evaluate(training.algorithm, training.test_split)
    assert len(read) == 1
    assert {"loss", "accuracy"} <= metrics.keys()


def test_restored_means_meet_new_values_on_the_device() -> None:
    interrupted = Meter()
    interrupted.update({"loss": torch.tensor(1.0), "accuracy": torch.tensor(50.0)}, 4)
    meter = Meter()
    meter.load_state_dict(interrupted.state_dict(), META)
    with no_transfers():
        meter.update({"loss": torch.ones((), device=META), "accuracy": torch.ones((), device=META)}, 4)
        assert {value.device for values in meter._values.values() for value in values} == {META}
