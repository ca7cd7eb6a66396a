"""What depends on the device: ``pytest -m cuda`` on a machine with a GPU. ``ALTPROP_CUDA_TESTS_ON=cpu`` tests these tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from altprop.algorithms.alignment_probe import AlignmentProbe
from altprop.algorithms.backprop import Backprop
from altprop.algorithms.context import Capabilities
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.distributed import DistributedGreedy
from altprop.algorithms.greedy.worker import pickled, unpickled
from altprop.algorithms.numerics import configure_numerics
from altprop.algorithms.recorder import CudaRecorder
from altprop.config.project import ROOT
from altprop.models.convnet import ConvNet
from altprop.nn.pooling import AdaptiveAvgPool2d
from altprop.nn.weights.base import Dense
from altprop.problems import RunFailed
from altprop.training.cost import peak_memory, watch_memory
from altprop.training.device import choose_device
from altprop.training.run import train
from tests.algorithms.harness import STEPS_PER_EPOCH, Case, Training, assert_equal
from tests.algorithms.registry import ALGORITHMS, LINEAR_HEAD, SMALL_MLP, WEIGHTS_RULES
from tests.algorithms.test_graphs import CASES, SCHEDULES, interrupted, start_training
from tests.training.fixtures import make_parts

DEVICE = torch.device(os.environ.get("ALTPROP_CUDA_TESTS_ON", "cuda"))
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        (DEVICE.type == "cuda" and not torch.cuda.is_available())
        or ("ALTPROP_CUDA_TESTS_ON" not in os.environ and DEVICE.type == "cpu"),
        reason="there is no CUDA device",
    ),
]
on_cuda_only = pytest.mark.skipif(DEVICE.type != "cuda", reason="only CUDA has this")
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def supporting(capability: str) -> pytest.MarkDecorator:
    """The algorithms that claim ``capability``."""
    return pytest.mark.parametrize("name", [name for name in ALGORITHMS if getattr(capabilities(name), capability)])


def capabilities(name: str) -> Capabilities:
    return ALGORITHMS[name].algorithm(WEIGHTS_RULES["dense"]()).capabilities


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Deterministic kernels, without which nothing is equal bit for bit."""
    configure_numerics("fp32", deterministic=True)
    yield
    configure_numerics("fp32", deterministic=False)


def on_host(state: Any) -> Any:
    """``state`` as a checkpoint would bring it back: on the CPU."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf, state)


@every_algorithm
def test_learns(name: str) -> None:
    assert Training(ALGORITHMS[name], device=DEVICE).run().evaluate()["accuracy"] >= ALGORITHMS[name].learns_to


@every_algorithm
def test_resumes_bit_exactly(name: str) -> None:
    straight = Training(ALGORITHMS[name], device=DEVICE).run(2 * STEPS_PER_EPOCH)
    interrupted = Training(ALGORITHMS[name], device=DEVICE).run(STEPS_PER_EPOCH + 2)
    resumed = Training(ALGORITHMS[name], device=DEVICE).restore(on_host(interrupted.state())).run(STEPS_PER_EPOCH - 2)
    assert_equal(on_host(straight.state()), on_host(resumed.state()))


@pytest.mark.parametrize("rule", WEIGHTS_RULES)
def test_weights_rules_resume_bit_exactly(rule: str) -> None:
    case, make = ALGORITHMS["backprop"], WEIGHTS_RULES[rule]
    straight = Training(case, make(), device=DEVICE).run(2 * STEPS_PER_EPOCH)
    interrupted = Training(case, make(), device=DEVICE).run(STEPS_PER_EPOCH + 2)
    resumed = Training(case, make(), device=DEVICE).restore(on_host(interrupted.state())).run(STEPS_PER_EPOCH - 2)
    assert_equal(on_host(straight.state()), on_host(resumed.state()))


@every_algorithm
def test_first_step_is_that_of_the_cpu(name: str) -> None:
    """The same numbers as on a CPU, unless the step draws on the device."""
    ours, cpu = Training(ALGORITHMS[name], device=DEVICE), Training(ALGORITHMS[name])
    for training in (ours, cpu):
        training.run(1)
    assert ours.losses == pytest.approx(cpu.losses, rel=1e-4)


@pytest.mark.parametrize("at", [3, 10])
def test_a_stopped_run_resumes_bit_exactly(at: int, tmp_path: Path) -> None:
    """Also between two reads of the running means, and with dropout."""
    settings: dict[str, Any] = {"device": DEVICE.type, "deterministic": True, "duration": "3ep"}
    train(make_parts(tmp_path / "straight", **settings))

    class Interrupted(Backprop):
        def train_step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
            if self.step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().train_step(*batch)

    with pytest.raises(SystemExit):
        train(make_parts(tmp_path / "stopped", algorithm=Interrupted(), **settings))
    train(make_parts(tmp_path / "stopped", **settings))
    states = []
    for folder in ("straight", "stopped"):
        [file] = (tmp_path / folder).rglob("last.pt")
        states.append(torch.load(file, weights_only=True))
    for key in ("algorithm", "random"):
        assert_equal(states[0][key], states[1][key], key)
    assert states[0]["progress"]["last"]["train/loss"] == states[1]["progress"]["last"]["train/loss"]


@every_algorithm
def test_evaluation_is_that_of_the_cpu(name: str) -> None:
    ours = Training(ALGORITHMS[name], device=DEVICE).run(3)
    cpu = Training(ALGORITHMS[name])
    cpu.algorithm.load_state_dict(on_host(ours.state())["algorithm"])
    metrics = cpu.evaluate()
    assert ours.evaluate() == {key: pytest.approx(value, rel=1e-3, abs=1.1) for key, value in metrics.items()}


@supporting("amp")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns(name: str, precision: str) -> None:
    if capabilities(name).needs_energy and precision == "fp16":
        pytest.skip("states need the range of float32; validation refuses fp16")
    mixed = Training(ALGORITHMS[name], device=DEVICE, precision=precision).run()
    assert mixed.evaluate()["accuracy"] >= ALGORITHMS[name].learns_to - 10


@supporting("compile")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_step_is_the_plain_step(name: str) -> None:
    torch._dynamo.reset()
    plain = Training(ALGORITHMS[name], device=DEVICE).run(3)
    compiled = Training(ALGORITHMS[name], device=DEVICE, compile=True).run(3)
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-3)


@on_cuda_only
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_graphs_are_the_eager_steps(name: str, schedule: str) -> None:
    recorders = (None, CudaRecorder(DEVICE))
    eager, graphs = (interrupted(partial(start_training, CASES[name], schedule, each, device=DEVICE)) for each in recorders)
    assert graphs.algorithm.graphed is not None
    assert graphs.algorithm.graphed.graphs
    assert eager.losses == graphs.losses
    assert_equal(on_host(eager.state()), on_host(graphs.state()))


@on_cuda_only
@pytest.mark.parametrize("rule", [name for name, make in WEIGHTS_RULES.items() if make().cuda_graph])
def test_graphs_with_weights_rules_are_the_eager_steps(rule: str) -> None:
    make = WEIGHTS_RULES[rule]
    case, recorders = CASES["backprop"], (None, CudaRecorder(DEVICE))
    eager, graphs = (interrupted(partial(start_training, case, "per step", each, make(), DEVICE)) for each in recorders)
    assert_equal(on_host(eager.state()), on_host(graphs.state()))


@on_cuda_only
def test_a_run_with_graphs_is_the_eager_run(tmp_path: Path) -> None:
    states = []
    for graphs in (False, True):
        settings: dict[str, Any] = {"device": "cuda", "deterministic": True, "cuda_graph": graphs, "probe_every": "5st"}
        train(make_parts(tmp_path / str(graphs), **settings))
        states.append(torch.load(next((tmp_path / str(graphs)).rglob("last.pt")), weights_only=True))
    for key in ("algorithm", "random"):
        assert_equal(states[0][key], states[1][key], key)
    for metric in ("train/loss", "test/accuracy", "cost/flops"):
        assert states[0]["progress"]["last"][metric] == states[1]["progress"]["last"][metric]


@on_cuda_only
def test_a_step_that_waits_cannot_be_captured() -> None:
    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        result = nn.functional.cross_entropy(scores, targets)
        return result * (2 if float(result.detach()) > 100 else 1)

    case = Case(lambda weights: Backprop(loss=loss, weights=weights))
    with pytest.raises(RunFailed, match=r"the step cannot be captured .*trainer\.cuda_graph=false"):
        Training(case, Dense(), device=DEVICE, recorder=CudaRecorder(DEVICE)).run(5)


@on_cuda_only
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_fused_optimizers_train_alike(optimizer: Any) -> None:
    def trained(**options: Any) -> Training:
        case = Case(lambda weights: Backprop(weights=weights), optimizer=partial(optimizer, lr=0.01, **options))
        return Training(case, device=DEVICE).run(12)

    fused, plain = trained(), trained(fused=False)
    assert fused.algorithm.optimizers[0].optimizer.defaults["fused"] is True
    assert fused.losses == pytest.approx(plain.losses, rel=1e-3)


@on_cuda_only
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_run_of_the_cpu_resumes_on_the_device(optimizer: Any) -> None:
    case = Case(lambda weights: Backprop(weights=weights), optimizer=partial(optimizer, lr=0.01))
    cpu = Training(case).run(3)
    resumed = Training(case, device=DEVICE).restore(cpu.state()).run(3)
    assert resumed.losses == pytest.approx(cpu.run(3).losses[3:], rel=1e-3)


def test_channels_last_is_the_plain_step() -> None:
    case = Case(lambda weights: Backprop(weights=weights), partial(ConvNet, units=nn.ReLU))
    plain, last = Training(case, device=DEVICE), Training(case, device=DEVICE, channels_last=True)
    last.algorithm.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert last.run(3).losses == pytest.approx(plain.run(3).losses, rel=1e-3)


@every_algorithm
def test_the_probe_changes_nothing(name: str) -> None:
    plain, probed = Training(ALGORITHMS[name], device=DEVICE), Training(ALGORITHMS[name], device=DEVICE)
    if not plain.algorithm.capabilities.probe:
        pytest.skip("the algorithm does not support the probe")
    probe = AlignmentProbe(probed.algorithm)
    for training, step in ((plain, plain.algorithm.train_step), (probed, probe.step)):
        training.algorithm.epoch_start(0)
        for batch in training.train_split.batches():
            step(*batch)
    assert_equal(on_host(plain.state()["algorithm"]["model"]), on_host(probed.state()["algorithm"]["model"]))


def test_peak_memory_is_that_of_the_device() -> None:
    watch_memory(DEVICE)
    Training(ALGORITHMS["backprop"], device=DEVICE).run(2)
    assert peak_memory(DEVICE)["bytes"] > 0


@pytest.mark.parametrize("size", [(7, 5), (8, 8)])
def test_adaptive_pooling_is_deterministic(size: tuple[int, int]) -> None:
    inputs = torch.randn(2, 3, *size, device=DEVICE, requires_grad=True)
    outputs = AdaptiveAvgPool2d((2, 3))(inputs)
    outputs.sum().backward()
    expected = nn.AdaptiveAvgPool2d((2, 3))(inputs.detach().cpu())
    assert torch.allclose(outputs.detach().cpu(), expected, atol=1e-6)


def test_distributed_blocks_are_bit_for_bit_the_blocks_of_one_process() -> None:
    def case(algorithm: type, **options: Any) -> Case:
        return Case(lambda weights: algorithm(head=LINEAR_HEAD, weights=weights, **options), SMALL_MLP)

    alone = Training(case(DecoupledGreedy), device=DEVICE, deterministic=True).run(STEPS_PER_EPOCH)
    together = Training(case(DistributedGreedy, workers=2), device=DEVICE, deterministic=True)
    try:
        together.run(STEPS_PER_EPOCH)
        assert_equal(on_host(alone.state()["algorithm"]["model"]), on_host(together.state()["algorithm"]["model"]))
    finally:
        together.algorithm.close()


def test_a_plan_arrives_on_the_cpu() -> None:
    layer = unpickled(pickled(nn.Linear(2, 2, device=DEVICE)))  # type: ignore[arg-type]
    assert layer.weight.device.type == "cpu"  # type: ignore[attr-defined]


@on_cuda_only
def test_the_device_has_a_number() -> None:
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    assert choose_device("cuda:0") == torch.device("cuda", 0)


def test_two_runs_share_a_device(tmp_path: Path) -> None:
    arguments = ["trainer.duration=20st", f"trainer.device={DEVICE.type}", "trainer.figures=false", "trainer.evaluate_every=null"]
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"paths.outputs={tmp_path}"]
    runs = [subprocess.Popen([*command, f"seed={seed}"], stderr=subprocess.PIPE, text=True) for seed in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert len(list(tmp_path.rglob("status.json"))) == 2
