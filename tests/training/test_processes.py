"""One run on several processes, started as users start it: the same updates, one log, one set of files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from altprop.config.project import ROOT
from altprop.nn.synchronized_batch_norm import SynchronizedBatchNorm, synchronize_batch_norm
from altprop.problems import ConfigError
from altprop.training.processes import agreed_signal, mean_over_processes, refuse_shared_gpus, sum_over_processes

RUN = [
    "trainer.duration=2ep",
    "trainer.limit_batches=6",
    "trainer.evaluate_every=4st",
    "trainer.figures=false",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.sync_batch_norm=true",
    "model.hidden=[16]",
    "optimizer=sgd",
]


def train(outputs: Path, processes: int, *overrides: str) -> Path:
    """The directory of a run trained by so many processes; fails where they fail."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    starter = torchrun if processes > 1 else []
    environment = {**os.environ, "ALTPROP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *starter, str(ROOT / "train.py"), *RUN, *overrides]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    [directory] = (outputs / "scratch").iterdir()
    return directory


def model_of(directory: Path, checkpoint: str = "last.pt") -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoints" / checkpoint, weights_only=True)["algorithm"]["model"]


def assert_close(one: Path, other: Path) -> None:
    left, right = model_of(one), model_of(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.allclose(value.double(), right[name].double(), rtol=1e-5, atol=1e-5), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_update_is_that_of_one_process(alone: Path, processes: int, tmp_path: Path) -> None:
    together = train(tmp_path, processes)
    assert together.name == alone.name  # how many trained a run is not part of what it computes
    assert_close(together, alone)
    records = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (alone, together)]
    assert [record["step"] for record in records[0]] == [record["step"] for record in records[1]] == [4, 8, 12]
    for mine, theirs in zip(*records, strict=True):
        for name in ("train/loss", "train/accuracy", "test/loss", "test/accuracy"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), name


def test_resumes_on_another_number_of_processes(alone: Path, tmp_path: Path) -> None:
    half = tmp_path / "scratch" / alone.name
    (half / "checkpoints").mkdir(parents=True)
    shutil.copy(alone / "checkpoints" / "last-1.pt", half / "checkpoints" / "last.pt")
    assert train(tmp_path, 2) == half
    assert "resuming from step 6" in (half / "train.log").read_text()
    assert_close(half, alone)


def test_the_probe_of_two_processes_sees_the_whole_mini_batch(alone: Path, tmp_path: Path) -> None:
    probed = train(tmp_path, 2, "trainer.probe_every=5st")
    assert_close(probed, alone)
    records = [json.loads(line) for line in (probed / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if any(name.startswith("alignment/") for name in record)]
    assert [record["step"] for record in found] == [1, 6, 11, 12]  # the last step, too
    for record in found:
        ratios = [value for name, value in record.items() if name.startswith("alignment/norm_ratio/")]
        angles = [value for name, value in record.items() if name.startswith("alignment/angle/")]
        assert ratios == pytest.approx([1.0, 1.0], abs=1e-4)  # backprop's update is the gradient, on all of the mini-batch
        assert angles == pytest.approx([0.0, 0.0], abs=0.1)


def test_alone_nothing_is_exchanged() -> None:
    values = torch.arange(3.0)
    assert mean_over_processes(values, 1) is values
    assert sum_over_processes({"a": 1.0}, 1) == {"a": 1.0}
    assert (agreed_signal(None, 1), agreed_signal(15, 1)) == (None, 15)


def test_synchronized_batch_norm_alone_is_batch_norm() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3))
    shared = synchronize_batch_norm(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3)))
    assert isinstance(shared[1], SynchronizedBatchNorm)
    shared.load_state_dict(plain.state_dict())
    inputs = torch.randn(5, 2, 4, 4)
    assert torch.allclose(plain(inputs), shared(inputs))
    assert torch.equal(plain[1].running_var, shared[1].running_var)


def test_two_processes_on_one_gpu_are_refused() -> None:
    refuse_shared_gpus([("one", "a"), ("one", "b"), ("two", "a")])
    with pytest.raises(ConfigError) as refused:
        refuse_shared_gpus([("one", "a"), ("one", "b"), ("one", "a")])
    [problem] = refused.value.problems
    assert "\n" not in str(problem)
    assert "3 processes, but 2 GPUs" in str(problem)
