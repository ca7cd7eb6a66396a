"""Requirements for every algorithm: learn, resume bit-exactly, follow a stored curve, support its capabilities and all rules."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

import altprop.training.processes  # noqa: F401  (an import after the group is created would keep its threads alive)
from tests.algorithms.harness import STEPS_PER_EPOCH, Training, assert_equal
from tests.algorithms.registry import ALGORITHMS, WEIGHTS_RULES

CURVES = Path(__file__).parent / "curves"
CURVE_STEPS = 24
STORE_CURVES = bool(os.environ.get("ALTPROP_STORE_CURVES"))
STORED_CURVES = sorted(file.stem for file in CURVES.glob("*.json"))
"""A new algorithm has no curve until ``make store`` adds it."""

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def supporting(capability: str) -> pytest.MarkDecorator:
    """Parametrize with the algorithms that support ``capability``."""
    names = [
        name for name, case in ALGORITHMS.items() if getattr(case.algorithm(WEIGHTS_RULES["dense"]()).capabilities, capability)
    ]
    return pytest.mark.parametrize("name", names)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@every_algorithm
def test_learns(name: str) -> None:
    training = Training(ALGORITHMS[name])
    before = training.evaluate()["accuracy"]
    after = training.run().evaluate()["accuracy"]
    assert after >= ALGORITHMS[name].learns_to
    assert after > before


@every_algorithm
@pytest.mark.parametrize("steps", [1, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 2])
def test_resumes_bit_exactly(name: str, steps: int) -> None:
    total = 4 * STEPS_PER_EPOCH + 1
    straight = Training(ALGORITHMS[name]).run(total)
    interrupted = Training(ALGORITHMS[name]).run(steps)
    resumed = Training(ALGORITHMS[name]).restore(interrupted.state()).run(total - steps)
    assert_equal(straight.state(), resumed.state())
    assert interrupted.losses + resumed.losses == straight.losses


@every_algorithm
def test_state_is_plain_data(name: str, tmp_path: Path) -> None:
    training = Training(ALGORITHMS[name]).run(3)
    torch.save(training.state()["algorithm"], tmp_path / "state.pt")
    assert_equal(torch.load(tmp_path / "state.pt", weights_only=True), training.state()["algorithm"])


@pytest.mark.parametrize("name", ALGORITHMS if STORE_CURVES else STORED_CURVES)
def test_follows_its_stored_curve(name: str) -> None:
    """Losses of the first steps. A difference is a change of numerics: explain it, delete the file and run ``make store``."""
    losses = Training(ALGORITHMS[name]).run(CURVE_STEPS).losses
    path = CURVES / f"{name}.json"
    if STORE_CURVES and not path.exists():
        path.write_text(json.dumps([round(loss, 7) for loss in losses]) + "\n")
    stored = json.loads(path.read_text())
    assert len(losses) == len(stored) > 0
    assert losses == pytest.approx(stored, rel=2e-3, abs=1e-5)


@every_algorithm
def test_metrics_are_scalars_on_the_device(name: str) -> None:
    training = Training(ALGORITHMS[name])
    training.algorithm.epoch_start(0)
    metrics = training.algorithm.train_step(*next(training.train_split.batches()))
    for value in metrics.values():
        assert isinstance(value, Tensor)
        assert value.numel() == 1
        assert not value.requires_grad


@every_algorithm
def test_evaluation_changes_nothing(name: str) -> None:
    training = Training(ALGORITHMS[name]).run(3)
    before = training.state()
    first, second = training.evaluate(), training.evaluate()
    assert first == second
    assert_equal(training.state(), before)


@every_algorithm
@pytest.mark.parametrize("rule", WEIGHTS_RULES)
def test_composes_with_weights_rule(name: str, rule: str) -> None:
    case = ALGORITHMS[name]
    training = Training(case, WEIGHTS_RULES[rule]())
    if not training.algorithm.capabilities.weights_rules:
        pytest.skip("the algorithm does not support weights rules; validation refuses the combination")
    if training.algorithm.capabilities.freezes and training.algorithm.weights.moves:
        pytest.skip("the rule would change frozen weights; validation refuses the combination")
    training.run(STEPS_PER_EPOCH + 2)
    assert all(torch.isfinite(parameter).all() for parameter in training.algorithm.model.parameters())
    resumed = Training(case, WEIGHTS_RULES[rule]()).restore(training.state())
    assert_equal(training.run(3).state(), resumed.run(3).state())


@supporting("accumulate")
def test_accumulation_gives_the_same_update(name: str) -> None:
    """Without batch statistics, the gradients of slices add up to that of the whole mini-batch."""
    whole = Training(ALGORITHMS[name], dtype=torch.float64)
    sliced = Training(ALGORITHMS[name], dtype=torch.float64, accumulate=4)
    for training in (whole, sliced):
        training.algorithm.epoch_start(0)
        _freeze_batch_norm(training.algorithm.model)
        training.algorithm.train_step(*next(training.train_split.batches()))
    _assert_close(whole, sliced, 1e-10)


@supporting("clip")
def test_clipping_bounds_the_update(name: str) -> None:
    free, clipped = Training(ALGORITHMS[name]), Training(ALGORITHMS[name], clip_norm=1e-3)
    lengths = []
    for training in (free, clipped):
        before = [value.detach().clone() for value in training.algorithm.model.parameters()]
        training.run(1)
        moved = [(value.detach() - old).norm() for value, old in zip(training.algorithm.model.parameters(), before, strict=True)]
        lengths.append(float(torch.stack(moved).norm()))
    assert lengths[1] < lengths[0]


@supporting("amp")
@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_stays_close(name: str, precision: str) -> None:
    full, mixed = Training(ALGORITHMS[name]).run(), Training(ALGORITHMS[name], precision=precision).run()
    assert all(parameter.dtype == torch.float32 for parameter in mixed.algorithm.model.parameters())
    assert mixed.evaluate()["accuracy"] >= full.evaluate()["accuracy"] - 5


@supporting("compile")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_step_equals_the_plain_step(name: str) -> None:
    torch._dynamo.reset()
    plain, compiled = Training(ALGORITHMS[name]).run(3), Training(ALGORITHMS[name], compile=True).run(3)
    _assert_close(plain, compiled, 1e-4)


@supporting("ddp")
def test_two_processes_give_the_update_of_one(name: str, tmp_path: Path) -> None:
    """Two processes with half of each mini-batch make the same update as one with the whole, except for batch norm."""
    torch.multiprocessing.spawn(_distributed_steps, (name, str(tmp_path)), nprocs=2)
    alone = Training(ALGORITHMS[name], dtype=torch.float64)
    _steps_without_batch_norm(alone, lambda tensor: tensor)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for key, value in alone.algorithm.model.state_dict().items():
            assert torch.allclose(state[key], value, rtol=0, atol=1e-10), key


def test_weights_rules_agree_on_two_processes(tmp_path: Path) -> None:
    """Over two epochs of each rule, masks, reallocation and random draws equal each other and those of one process."""
    torch.multiprocessing.spawn(_distributed_rules, (str(tmp_path),), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for rule, make in WEIGHTS_RULES.items():
        alone = Training(ALGORITHMS["backprop"], make(), dtype=torch.float64)
        for epoch in range(2):
            _steps_without_batch_norm(alone, lambda tensor: tensor, epoch)
            alone.algorithm.epoch_end(epoch)
        for key, value in alone.algorithm.model.state_dict().items():
            assert torch.equal(states[0][rule][key], states[1][rule][key]), (rule, key)
            assert torch.allclose(states[0][rule][key].double(), value.double(), rtol=0, atol=1e-10), (rule, key)


def _distributed_rules(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    states = {}
    for rule, make in WEIGHTS_RULES.items():
        training = Training(ALGORITHMS["backprop"], make(), dtype=torch.float64, rank=rank, world_size=2)
        for epoch in range(2):
            _steps_without_batch_norm(training, lambda tensor: tensor.tensor_split(2)[rank], epoch)
            training.algorithm.epoch_end(epoch)
        states[rule] = training.algorithm.model.state_dict()
    torch.save(states, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _distributed_steps(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    training = Training(ALGORITHMS[name], dtype=torch.float64, rank=rank, world_size=2)
    _steps_without_batch_norm(training, lambda tensor: tensor.tensor_split(2)[rank])
    torch.save(training.algorithm.model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    # A thread that outlives the group can abort the process when it exits.
    assert not [thread for thread in Path("/proc/self/task").glob("*/comm") if "gloo" in thread.read_text()]


def _steps_without_batch_norm(training: Training, share: object, epoch: int = 0) -> None:
    training.algorithm.epoch_start(epoch)
    _freeze_batch_norm(training.algorithm.model)
    for inputs, targets in training.train_split.batches(epoch):
        training.algorithm.train_step(share(inputs), share(targets))  # type: ignore[operator]


def _freeze_batch_norm(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def _assert_close(one: Training, other: Training, tolerance: float) -> None:
    others = dict(other.algorithm.model.named_parameters())
    for key, value in one.algorithm.model.named_parameters():
        assert torch.allclose(value, others[key], rtol=tolerance, atol=tolerance), key
