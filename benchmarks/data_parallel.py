"""Speedup of data-parallel backprop on two processes over one process, for the same mini-batch.

    OMP_NUM_THREADS=1 python benchmarks/data_parallel.py [--batch 64] [--steps 4] [--rounds 5] [--device cuda]
        [--json result.json]

Every process has one thread; time is wall time until the last process is done. One process takes the whole mini-batch; two
processes take half of it each and average their gradients, by gloo, or with ``--device cuda`` by NCCL on two GPUs. With fewer
idle cores than processes there is no speedup; the limit assumes two idle cores. The model has 6 blocks of 3 x 3 convolutions
(``greedy_cnn``), images are 32 x 32. For blocks on separate processes see ``parallel_blocks.py``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired
from subjects import CIFAR, CLASSES, noise, set_up
from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.models.greedy_cnn import GreedyCNN

SUITE = "--rounds 5 --clock wall"
QUICK = "--rounds 1 --steps 1 --batch 4 --width 4 --clock wall"


def make_model(width: int) -> nn.Module:
    return GreedyCNN(depth=6, width=width, units=nn.ReLU, input_shape=CIFAR, num_classes=CLASSES)


def worker(rank: int, world_size: int, address: str, width: int, batch: int, kind: str, pipe: Any) -> None:
    """Run one process of a data-parallel training: receive a number of steps, take them, and repeat until it is 0."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)
    size = batch // world_size
    algorithm = set_up(Backprop(), partial(make_model, width), CIFAR, size, device=device, rank=rank, world_size=world_size)
    mini_batch = noise(size, CIFAR, device)
    while steps := pipe.recv():
        for _ in range(steps):
            algorithm.train_step(*mini_batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send(steps)
    if world_size > 1:
        torch.distributed.destroy_process_group()


class DataParallel:
    """``world_size`` worker processes, which wait between rounds."""

    def __init__(self, world_size: int, width: int, batch: int, kind: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        address = f"file://{Path(self.folder.name) / 'rendezvous'}"
        spawn = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(world_size):
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=worker, args=(rank, world_size, address, width, batch, kind, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def __enter__(self) -> DataParallel:
        return self

    def __call__(self, steps: int) -> None:
        for pipe in self.pipes:
            pipe.send(steps)
        for pipe in self.pipes:
            pipe.recv()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe, process in zip(self.pipes, self.processes):
            if process.is_alive():
                pipe.send(0)
            process.join(timeout=10)
        self.folder.cleanup()


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5, clock="wall")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="steps per round; default 4")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    if args.device == "cuda" and torch.cuda.device_count() < 2:
        raise SystemExit("--device cuda needs two GPUs, one for each process")
    forms = (DataParallel(count, args.width, args.batch, args.device) for count in (1, 2))
    with next(forms) as one, next(forms) as two:
        sides = {"1": partial(one, args.steps), "2": partial(two, args.steps)}
        seconds = alternate(sides, args.rounds, Timer("wall"))
    what, limit = f"backprop, batch {args.batch}, two processes", at_least(1.6, "2 idle cores, 80 % of them used")
    yield paired(what, "one process", seconds["1"], seconds["2"], limit, scale=1e3 / args.steps)


if __name__ == "__main__":
    main(parser(), rows)
