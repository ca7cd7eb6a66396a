"""Blocks on several processes: the weights of the single-process form, resume, and failing workers."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.distributed import DistributedGreedy
from altprop.algorithms.greedy.feature_channel import Batch, Inbox, Mark, Outbox
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.greedy.worker import configure_process, pickled, process_group, unpickled
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.numerics import configure_numerics
from altprop.algorithms.schedule import Schedule
from altprop.models.greedy_cnn import GreedyCNN
from altprop.problems import ConfigError, RunFailed
from tests.algorithms.harness import assert_equal

ROOT = Path(__file__).resolve().parents[3]
SHAPE, CLASSES, STEPS = (1, 8, 8), 3, 3
ADAM = partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def to_close() -> Iterator[list[DistributedGreedy]]:
    algorithms: list[DistributedGreedy] = []
    yield algorithms
    for algorithm in algorithms:
        algorithm.close()


def set_up(algorithm: LocalLosses, **context: Any) -> Any:
    torch.manual_seed(0)
    model = GreedyCNN(depth=4, width=4, downsample=(1,), units=nn.ReLU, input_shape=SHAPE, num_classes=CLASSES)
    facts = {"steps_per_epoch": STEPS, "total_epochs": 4, "device": torch.device("cpu"), "seed": 0, "batch_size": 6, **context}
    schedule = Schedule(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    algorithm.setup(model, ADAM, schedule, Context(input_shape=SHAPE, num_classes=CLASSES, **facts))  # type: ignore[arg-type]
    return algorithm


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, *SHAPE, generator=generator), torch.randint(CLASSES, (6,), generator=generator)


def train(algorithm: LocalLosses, steps: int, first: int = 0) -> list[dict[str, Tensor]]:
    ends = []
    for step in range(first, first + steps):
        if step % STEPS == 0:
            algorithm.epoch_start(step // STEPS)
        algorithm.train_step(*batch(step))
        if step % STEPS == STEPS - 1:
            ends.append(algorithm.epoch_end(step // STEPS))
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_gives_the_weights_of_one_process(workers: int, to_close: list[DistributedGreedy]) -> None:
    alone = set_up(DecoupledGreedy(reset_optimizer_at=[1]))
    together = set_up(DistributedGreedy(workers=workers, reset_optimizer_at=[1]))
    to_close.append(together)
    seen = []
    for step in range(2 * STEPS):
        if step % STEPS == 0:
            alone.epoch_start(step // STEPS)
        metrics = alone.train_step(*batch(step))
        seen.append({name: float(value) for name, value in metrics.items()})
        if step % STEPS == STEPS - 1:
            alone.epoch_end(step // STEPS)
    ends = train(together, 2 * STEPS)
    mine, theirs = together.state_dict(), alone.state_dict()
    for key in ("model", "heads", "optimizers"):
        assert_equal(mine[key], theirs[key], key)
    for name in ("loss", "accuracy", "block2/loss", "block4/accuracy"):
        mean = sum(metrics[name] for metrics in seen[-STEPS:]) / STEPS
        assert float(ends[-1][f"train/{name}"]) == pytest.approx(mean, rel=1e-6)
    inputs, _ = batch(99)
    with together.inference(), alone.inference():
        for name, scores in together.predictions(inputs).items():
            assert torch.equal(scores, alone.predictions(inputs)[name])


@pytest.mark.slow
def test_a_record_within_an_epoch_has_the_means_of_every_block(to_close: list[DistributedGreedy]) -> None:
    """``train/loss`` is that of the last block in every record, not that of the first process."""
    alone, together = set_up(DecoupledGreedy()), set_up(DistributedGreedy(workers=2))
    to_close.append(together)
    train(alone, STEPS)
    train(together, STEPS)
    assert together.progress_metrics() == {}  # epoch_end has returned them
    alone.epoch_start(1)
    seen = [alone.train_step(*batch(STEPS + step)) for step in range(2)]
    train(together, 2, first=STEPS)
    record = together.progress_metrics()
    assert len(record) == 2 * 4 + 2
    for name, value in record.items():
        assert value == pytest.approx(sum(float(step[name.removeprefix("train/")]) for step in seen) / 2, rel=1e-6)


@pytest.mark.slow
def test_fp16_parameters_and_their_masters_are_fetched(to_close: list[DistributedGreedy]) -> None:
    options: dict[str, Any] = {"loss_scaling": LossScaling(init_scale=2.0**18), "master_weights": True}
    alone = set_up(DecoupledGreedy(**options), precision="fp16")
    together = set_up(DistributedGreedy(workers=2, **options), precision="fp16")
    to_close.append(together)
    train(alone, 2 * STEPS)
    train(together, 2 * STEPS)
    mine, theirs = together.state_dict(), alone.state_dict()
    for key in ("model", "heads", "optimizers"):
        assert_equal(mine[key], theirs[key], key)


@pytest.mark.slow
def test_resumes_bit_exactly_in_the_middle_of_an_epoch(to_close: list[DistributedGreedy]) -> None:
    straight, resumed = set_up(DistributedGreedy(workers=2)), set_up(DistributedGreedy(workers=2))
    to_close += [straight, resumed]
    train(straight, 4)
    state = copy.deepcopy(straight.state_dict())
    train(straight, 1, first=4)
    assert int(state["sums"][-1][2]) == 6
    resumed.load_state_dict(state)
    resumed.epoch_start(1)
    train(resumed, 1, first=4)
    assert_equal(straight.state_dict(), resumed.state_dict())
    straight.close()
    straight.close()
    assert not straight.processes
    assert_equal(straight.state_dict(), resumed.state_dict())


@pytest.mark.slow
def test_asynchronous_workers_make_all_steps_and_learn(to_close: list[DistributedGreedy]) -> None:
    algorithm = set_up(DistributedGreedy(workers=2, mode="asynchronous", buffer_size=3))
    to_close.append(algorithm)
    before = copy.deepcopy(algorithm.model.state_dict())
    for end in train(algorithm, 2 * STEPS):
        assert torch.isfinite(end["train/loss"])
    counts = [int(step.optimizer.state[step.parameters[0]]["step"]) for step in algorithm.optimizers]
    assert counts == [2 * STEPS] * 4
    moved = [name for name, value in algorithm.model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("features.0.") for name in moved)
    assert any(name.startswith("features.3.") for name in moved)


@pytest.mark.slow
def test_failure_of_a_worker_is_reported_in_one_line(to_close: list[DistributedGreedy]) -> None:
    algorithm = set_up(DistributedGreedy(workers=2))
    algorithm.epoch_start(0)
    algorithm.train_step(*batch(0))
    _, targets = batch(1)
    algorithm.pipeline.send(Batch(torch.zeros(6, 99), targets))
    with pytest.raises(RunFailed, match="the worker of blocks 3 to 4 failed"):
        algorithm.epoch_end(0)
    for process in algorithm.processes:
        process.join()


def command(outputs: Path, *arguments: str) -> list[str]:
    quick = ["experiment=dgl/quick_distributed_greedy", "dataset.limit_train=400", "dataset.limit_test=100", "trainer.threads=1"]
    return [sys.executable, str(ROOT / "train.py"), *quick, "trainer.figures=false", f"paths.outputs={outputs}", *arguments]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_run_ends_all_processes_without_errors(mode: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, f"algorithm.mode={mode}", "trainer.duration=1ep"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "rror" not in done.stderr


@pytest.mark.slow
def test_a_run_can_resume_after_an_interruption_of_all_processes(tmp_path: Path) -> None:
    """Ctrl-C is sent to all processes of a terminal."""
    arguments = command(tmp_path, "algorithm.mode=synchronous", "trainer.duration=400ep", "trainer.checkpoint_every=1ep")
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not list(tmp_path.glob("latest/checkpoints/last.pt")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "Resume with: python train.py run=" in stderr
    assert "Traceback" not in stderr
    assert json.loads((tmp_path / "latest" / "status.json").read_text())["status"] == "interrupted"


def test_random_models_and_plateau_schedules_are_refused() -> None:
    """Every process would have its own random stream, and only the first process gets the results of evaluations."""
    model = GreedyCNN(depth=4, width=4, units=partial(nn.Dropout, 0.2), input_shape=SHAPE, num_classes=CLASSES)
    context = Context(STEPS, 4, torch.device("cpu"), 0, SHAPE, CLASSES, 6)
    with pytest.raises(ConfigError, match="without dropout"):
        DistributedGreedy(workers=2).setup(model, ADAM, Schedule(), context)
    DistributedGreedy(workers=1).setup(model, ADAM, Schedule(), context)
    for name in ("dropout", "channel_dropout"):
        assert [p.key for p in DistributedGreedy.check({}, {"model": {name: 0.5}})] == ["model"]
        assert not list(DistributedGreedy.check({}, {"model": {name: 0.0}}))
    root = {"schedule": {"scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}}}
    assert [p.key for p in DistributedGreedy.check({"workers": 3}, root)] == ["schedule"]
    assert not list(DistributedGreedy.check({"workers": 1}, root))
    assert not list(DistributedGreedy.check({}, {"schedule": {"scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR"}}}))
    assert not list(DistributedGreedy.check({}, {"schedule": {"scheduler": None}}))


def test_one_worker_starts_no_other_process() -> None:
    alone, single = set_up(DecoupledGreedy()), set_up(DistributedGreedy(workers=1))
    train(alone, STEPS)
    train(single, STEPS)
    assert not single.processes
    assert_equal(single.state_dict()["model"], alone.state_dict()["model"])


def test_more_workers_than_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 4"):
        set_up(DistributedGreedy(workers=5))
    assert [p.key for p in DistributedGreedy.check({"workers": 0}, {})] == ["algorithm.workers"]
    assert [p.key for p in DistributedGreedy.check({"max_uses": 2}, {})] == ["algorithm.max_uses"]
    assert not list(DistributedGreedy.check({"max_uses": 2, "mode": "asynchronous"}, {}))
    assert [p.key for p in DistributedGreedy.check({"max_uses": 0, "mode": "asynchronous"}, {})] == ["algorithm.max_uses"]


def test_channel_preserves_order_and_respects_its_capacity() -> None:
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(process_group, rank, 2, store) for rank in range(2)]
        sender, receiver = (end.result() for end in ends)
        outbox, inbox = Outbox(sender, 1, capacity=2), Inbox(receiver, 0)
        messages: list[Batch | Mark] = [Batch(torch.full((2, 3, 4), float(n)), torch.tensor([n, n])) for n in range(5)]
        messages.insert(2, Mark(3, 17))
        sending = pool.submit(lambda: [outbox.send(message) for message in messages])
        assert len(outbox.pending) <= 2
        for message in messages:
            received = inbox.receive()
            if isinstance(message, Mark):
                assert received == message
            else:
                assert isinstance(received, Batch)
                assert torch.equal(received.features, message.features)
                assert torch.equal(received.targets, message.targets)
        sending.result()
        assert len(outbox.pending) <= 2
        outbox.flush()
        assert not outbox.pending


@pytest.mark.parametrize(("precision", "deterministic"), [("tf32", False), ("fp32", True)])
def test_a_worker_has_the_numerics_of_the_first_process(precision: str, deterministic: bool) -> None:
    context = Context(
        steps_per_epoch=1,
        total_epochs=1,
        device=torch.device("cpu"),
        seed=0,
        input_shape=SHAPE,
        num_classes=CLASSES,
        batch_size=1,
        precision=precision,  # type: ignore[arg-type]
        deterministic=deterministic,
    )
    plan = types.SimpleNamespace(threads=1, context=context, rank=1)
    try:
        configure_process(plan)  # type: ignore[arg-type]
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.benchmark != deterministic
    finally:
        configure_numerics("fp32", deterministic=False)


def test_a_plan_travels_by_value() -> None:
    layer = nn.Linear(2, 2)
    copy_of = unpickled(pickled(layer))  # type: ignore[arg-type]
    assert torch.equal(copy_of.weight, layer.weight)  # type: ignore[attr-defined]
    assert copy_of.weight.data_ptr() != layer.weight.data_ptr()  # type: ignore[attr-defined]
