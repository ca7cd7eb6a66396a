"""The processes that train one run together: their ranks, and what they agree on and add up."""

from __future__ import annotations

import os
import signal
import socket
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

# Imported before a process group exists: its functions take the current group as a default argument. If they were imported later,
# they would keep that group alive, and with it threads that can abort the process at exit.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from altprop.algorithms.base import Algorithm
from altprop.problems import ConfigError, Problem, RunFailed


@dataclass(frozen=True)
class Processes:
    """This process (``rank``) of the ``world_size`` that train a run; ``local_rank`` is its rank on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.rank == 0


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """Join the other processes of this run, if torchrun or SLURM has started any.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and an address; in a SLURM job they are those of its tasks. ``device`` is
    ``trainer.device``: with GPUs, each process uses the one of its local rank.
    """
    _take_over_slurm_tasks()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    processes = Processes(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(processes.local_rank % gpus)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    try:
        if gpus:
            own = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
            refuse_shared_gpus(gathered((socket.gethostname(), own), processes.world_size))
        yield processes
    finally:
        torch.distributed.destroy_process_group()


def gathered(value: Any, world_size: int) -> list[Any]:
    """``value`` of every process, by rank. All processes must call this."""
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values


def refuse_shared_gpus(gpus: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError if two processes have the same GPU, which NCCL cannot serve. ``gpus`` are (host, id) by rank."""
    counts = Counter(gpus)
    shared = sum(counts.values()) - len(counts)
    if shared:
        description = f"{len(gpus)} processes, but {len(counts)} GPU{'s' if len(counts) > 1 else ''}"
        fix = f"resources.processes={len(counts)}, torchrun --nproc-per-node={len(counts)}, or trainer.device=cpu"
        raise ConfigError([Problem("resources.processes", description, "one GPU for each process", fix)])


def _take_over_slurm_tasks() -> None:
    """Set torchrun's variables from the tasks of a SLURM job step."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return
    from submitit.helpers import TorchDistributedEnvironment

    # A requeued job may find the port of its previous attempt still in use.
    attempt = f"{os.environ['SLURM_JOB_ID']}/{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    os.environ["MASTER_PORT"] = str(20000 + zlib.crc32(attempt.encode()) % 10000)
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def check_together(algorithm: Algorithm, processes: Processes) -> None:
    """Raise ConfigError if ``algorithm`` cannot be trained by several processes."""
    if processes.world_size > 1 and not algorithm.capabilities.ddp:
        description = f"{processes.world_size} processes, which {type(algorithm).__name__} does not support"
        raise ConfigError([Problem("resources.processes", description, "only 1 is", "resources=gpu, or without torchrun")])


def agreed_signal(received: int | None, world_size: int) -> int | None:
    """The signal that any process has received, the same on all processes. A preemption takes precedence."""
    if world_size == 1:
        return received
    urgency = {signal.SIGUSR2: 2}.get(signal.Signals(received), 1) if received is not None else 0
    code = torch.tensor(urgency * 1000 + (received or 0))
    torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MAX)
    return int(code) % 1000 or None


def mean_over_processes(values: Tensor, world_size: int) -> Tensor:
    """The mean of ``values`` (any shape, on the CPU) over all processes."""
    if world_size == 1:
        return values
    total = values.double()
    torch.distributed.all_reduce(total)
    return (total / world_size).to(values.dtype)


def sum_over_processes(values: Mapping[str, float], world_size: int) -> dict[str, float]:
    """Sums by name over all processes; a process may lack a name."""
    if world_size == 1:
        return dict(values)
    gathered: list[Mapping[str, float]] = [{}] * world_size
    torch.distributed.all_gather_object(gathered, dict(values))
    names = dict.fromkeys(name for part in gathered for name in part)
    return {name: sum(part.get(name, 0.0) for part in gathered) for name in names}


def wait_for_all(world_size: int) -> None:
    """Wait until every process has reached this point."""
    if world_size > 1:
        torch.distributed.all_reduce(torch.zeros(()))


def share_running_statistics(model: nn.Module, world_size: int) -> None:
    """Copy the first process's running statistics of batch norm, which each process estimates from its own share, to all."""
    if world_size == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            torch.distributed.broadcast(module.running_mean, 0)
            torch.distributed.broadcast(module.running_var, 0)


def assert_identical(model: nn.Module, world_size: int) -> None:
    """Raise :class:`RunFailed` if the weights, masks or other state of ``model`` differ between processes."""
    if world_size == 1:
        return
    sums: list[int] = [0] * world_size
    torch.distributed.all_gather_object(sums, _checksum(model))
    if len(set(sums)) > 1:
        raise RunFailed("the weights of this run differ between its processes; nothing is saved from here on")


def _checksum(model: nn.Module) -> int:
    checksum = 0
    for value in model.state_dict().values():
        if isinstance(value, Tensor):
            checksum = zlib.crc32(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), checksum)
    return checksum
