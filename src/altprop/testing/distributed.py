"""The same training on one process and on two."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

import altprop.training.processes  # noqa: F401  (an import after the group is created would keep its threads alive)
from altprop.testing.problem import Training


def on_two_processes(suite: type, method: str, name: str, folder: Path) -> list[Any]:
    """What ``suite.<method>(name, rank)`` returns on each of two processes, which form a process group.

    The method is a static or class method that returns tensors and plain containers. The processes import the module of
    ``suite``, because they cannot receive functions such as those of a test case.
    """
    arguments = (suite.__module__, suite.__qualname__, method, name, str(folder))
    torch.multiprocessing.spawn(_process, arguments, nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _process(rank: int, module: str, suite: str, method: str, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    owner: Any = importlib.import_module(module)
    for part in suite.split("."):
        owner = getattr(owner, part)
    torch.save(getattr(owner, method)(name, rank), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    # A thread that outlives the group can abort the process when it exits.
    threads = Path("/proc/self/task")
    assert not [thread for thread in threads.glob("*/comm") if "gloo" in thread.read_text()]


def train_epoch(training: Training, epoch: int = 0, share: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
    """Train for one epoch on ``share`` of each mini-batch.

    Batch norm is in evaluation mode, because each process would have its own batch statistics.
    """
    training.algorithm.epoch_start(epoch)
    freeze_batch_norm(training.algorithm.model)
    for inputs, targets in training.train_split.batches(epoch):
        training.algorithm.train_step(share(inputs), share(targets))


def half(rank: int) -> Callable[[Tensor], Tensor]:
    """The share of process ``rank`` of two."""
    return lambda tensor: tensor.tensor_split(2)[rank]


def freeze_batch_norm(model: torch.nn.Module) -> None:
    """Put every batch norm in evaluation mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
