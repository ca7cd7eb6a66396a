"""Steps that are captured once and replayed are the eager steps bit for bit; on the CPU with a pretended graph."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.graphs import WARM_UP
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.recorder import Recorder
from altprop.algorithms.schedule import Schedule, warmup_cosine
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.models.energy import EnergyConvNet
from altprop.models.mlp import MLP
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.problems import ConfigError, RunFailed
from altprop.testing.examples import HARD_MLP, LINEAR_HEAD, WEIGHTS_RULES
from altprop.training.run import train
from tests.algorithms.harness import Case, TinySplit, Training, assert_equal
from tests.pretended_graphs import PretendedRecorder
from tests.training.fixtures import make_parts

FUSED_SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True)
FUSED_ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)
DROPOUT_MLP = partial(MLP, hidden=(16, 12), batch_norm=True, units=partial(nn.Dropout, 0.2))
DROPOUT_ENERGY_NET = partial(
    EnergyConvNet,
    channels=(4,),
    kernels=(3,),
    strides=(1,),
    paddings=(1,),
    pools=("max",),
    hidden=(8,),
    vector_field=True,
    keep_probabilities=(0.9, 0.8, 0.8, 1.0),
)
CASES: dict[str, Case] = {
    "backprop": Case(lambda weights: Backprop(weights=weights), DROPOUT_MLP, FUSED_ADAM),
    "backprop in slices": Case(
        lambda weights: Backprop(weights=weights), DROPOUT_MLP, FUSED_SGD, options={"accumulate": 2, "clip_norm": 0.5}
    ),
    "backprop in bf16": Case(lambda weights: Backprop(weights=weights), DROPOUT_MLP, FUSED_SGD, options={"precision": "bf16"}),
    "target propagation": Case(lambda weights: TargetPropagation(weights=weights, estimator=SoftHinge()), HARD_MLP, FUSED_ADAM),
    "decoupled greedy": Case(lambda weights: DecoupledGreedy(head=LINEAR_HEAD, weights=weights), DROPOUT_MLP, FUSED_SGD),
    "decoupled greedy with resets": Case(
        lambda weights: DecoupledGreedy(head=LINEAR_HEAD, weights=weights, reset_optimizer_at=[1]), DROPOUT_MLP, FUSED_ADAM
    ),
    "equilibrium propagation": Case(
        lambda weights: EquilibriumPropagation(
            beta=0.2, free_steps=6, nudge_steps=3, nudging="random_sign", check_every=3, weights=weights
        ),
        DROPOUT_ENERGY_NET,
        FUSED_ADAM,
    ),
}
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "per step": lambda: Schedule(scheduler=partial(warmup_cosine, warmup=2, total="total"), interval="step"),
    "per epoch": lambda: Schedule(scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.7)),
}


class WithSmallBatch(TinySplit):
    """The tiny problem with a last mini-batch of half the size."""

    def batches(self, epoch: int = 0, start: int = 0) -> Any:
        for index, (inputs, targets) in enumerate(super().batches(epoch, start), start):
            size = len(targets) // 2 if index == len(self) - 1 else len(targets)
            yield inputs[:size], targets[:size]


def start_training(
    case: Case,
    schedule: str,
    recorder: Recorder | None,
    weights: WeightsRule | None = None,
    device: torch.device | str = "cpu",
) -> Training:
    case = Case(case.algorithm, case.model, case.optimizer, SCHEDULES[schedule], epochs=5, options=case.options)
    result = Training(case, weights or Dense(), recorder=recorder, device=torch.device(device))
    result.train_split = WithSmallBatch(1, shuffle=True, device=device)
    return result


def interrupted(start: Callable[[], Training]) -> Training:
    """A training that evaluates in the middle, stops within an epoch and is resumed by another object of ``start``."""
    first = start().run(9)
    first.evaluate()
    first.run(6)
    second = start()
    second.losses = first.losses
    return second.restore(first.state()).run()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_graphs_train_as_eager_steps(name: str, schedule: str) -> None:
    recorder = PretendedRecorder()
    eager, graphs = (interrupted(partial(start_training, CASES[name], schedule, each)) for each in (None, recorder))
    assert eager.losses == graphs.losses
    assert_equal(eager.state(), graphs.state())
    assert eager.evaluate() == graphs.evaluate()
    assert recorder.captures >= 2
    assert recorder.replays > WARM_UP


@pytest.mark.parametrize("rule", [name for name, make in WEIGHTS_RULES.items() if make().cuda_graph])
def test_graphs_with_weights_rules(rule: str) -> None:
    case, make = CASES["backprop"], WEIGHTS_RULES[rule]
    recorder = PretendedRecorder()
    eager, graphs = (interrupted(partial(start_training, case, "per step", each, make())) for each in (None, recorder))
    assert_equal(eager.state(), graphs.state())
    assert recorder.replays > WARM_UP


@pytest.mark.parametrize("rule", [name for name, make in WEIGHTS_RULES.items() if not make().cuda_graph])
def test_rules_that_move_weights_are_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.cuda_graph"):
        start_training(CASES["backprop"], "per step", PretendedRecorder(), WEIGHTS_RULES[rule]())


def test_the_last_small_batch_has_a_graph_of_its_own() -> None:
    recorder = PretendedRecorder()
    trained = start_training(CASES["backprop"], "per epoch", recorder).run()
    assert trained.algorithm.graphed is not None
    assert recorder.captures == len(trained.algorithm.graphed.graphs) == 2
    assert recorder.warm_ups == 2 * WARM_UP


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"world_size": 2}])
def test_what_cannot_be_captured_is_refused(options: dict[str, Any]) -> None:
    case = Case(CASES["backprop"].algorithm, optimizer=FUSED_SGD, options=options)
    with pytest.raises(ConfigError, match=r"trainer\.cuda_graph"):
        Training(case, Dense(), recorder=PretendedRecorder())


def test_an_optimizer_that_is_not_fused_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer: is not fused"):
        Training(Case(CASES["backprop"].algorithm), Dense(), recorder=PretendedRecorder())


def test_a_step_that_waits_for_the_device_fails_in_one_line() -> None:
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        result = nn.functional.cross_entropy(scores, targets)
        return result * (2 if float(result.detach()) > 100 else 1)

    case = Case(lambda weights: Backprop(loss=loss, weights=weights), optimizer=FUSED_SGD)
    with pytest.raises(RunFailed, match=r"the step cannot be captured .*trainer\.cuda_graph=false"):
        Training(case, Dense(), recorder=PretendedRecorder()).run(WARM_UP + 1)


@pytest.mark.parametrize("probe_every", [None, "5st"])
def test_a_run_with_graphs_is_the_eager_run(probe_every: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With evaluations, counts of operations, the probe, and an interruption between two reads of the running means."""
    recorder = PretendedRecorder()
    monkeypatch.setattr("altprop.training.assembly.recorder_on", lambda device, wanted: recorder if wanted else None)

    class Interrupted(Backprop):
        def train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
            if self.step == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().train_step(inputs, targets)

    files = []
    for graphs in (False, True):
        settings: dict[str, Any] = {"cuda_graph": graphs, "optimizer": FUSED_ADAM, "probe_every": probe_every}
        folder = tmp_path / str(graphs)
        with pytest.raises(SystemExit):
            train(make_parts(folder, algorithm=Interrupted(), schedule=SCHEDULES["per step"](), **settings))
        train(make_parts(folder, schedule=SCHEDULES["per step"](), **settings))
        files.append(next(folder.rglob("last.pt")))
    eager, captured = (torch.load(file, weights_only=True) for file in files)
    for key in ("algorithm", "random"):
        assert_equal(eager[key], captured[key], key)
    for metric in ("train/loss", "test/accuracy", "cost/flops", "train/learning_rate"):
        assert eager["progress"]["last"][metric] == captured["progress"]["last"][metric]
    assert recorder.replays > 0
