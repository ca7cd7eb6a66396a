"""Speedup of decoupled greedy learning with blocks on several processes over the same blocks in one process.

    OMP_NUM_THREADS=1 python benchmarks/parallel_blocks.py [--batch 64] [--steps 12] [--workers 2] [--rounds 3]
        [--device cuda]

Both sides train the 6-layer CIFAR network (width 128, mlp_sr heads, one layer per block) with SGD on the same noise; every
process has one thread. A round is ``--steps`` steps. On several processes it ends when the last process has made its last update
and its weights and optimizer state have been fetched, as at the end of an epoch. The speedup needs as many idle cores as
processes; the load at the start is reported with it. The second row needs no idle cores: it compares the CPU time of the busiest
process, which gives the speedup with idle cores and without waiting (Linux only, it reads /proc).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired
from subjects import CIFAR, CLASSES, noise, set_up
from torch import nn

from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.distributed import DistributedGreedy
from altprop.models.greedy_cnn import GreedyCNN

SUITE = "--rounds 2 --steps 6 --clock wall"
QUICK = "--rounds 1 --batch 4 --width 8 --steps 2"
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=3, clock="wall")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    make_model = partial(GreedyCNN, depth=6, width=args.width, units=nn.ReLU, input_shape=CIFAR, num_classes=CLASSES)
    device = torch.device(args.device)
    inputs, targets = noise(args.batch, CIFAR, device)
    single, several = DecoupledGreedy(), DistributedGreedy(workers=args.workers)
    for algorithm in (single, several):
        set_up(algorithm, make_model, CIFAR, args.batch, SGD, device)
    computed: dict[str, list[list[float]]] = {"single": [], "several": []}

    def train(name: str) -> None:
        before = cpu_seconds(several)
        for _ in range(args.steps):
            (single if name == "single" else several).train_step(inputs, targets)
        several.synchronize()
        computed[name].append([after - start for start, after in zip(before, cpu_seconds(several))])

    several.train_step(inputs, targets)  # starts the processes
    load = os.getloadavg()[0]
    try:
        seconds = alternate({name: partial(train, name) for name in computed}, args.rounds, Timer(args.clock, device))
    finally:
        several.close()
    what, baseline = f"decoupled greedy, {args.workers} processes, batch {args.batch}", "the same blocks in one process"
    limit = at_least(1.0, "with idle cores, the blocks of each process take less time than all blocks")
    values = {"load": load, "cores": float(os.cpu_count() or 1)}
    yield paired(what, baseline, seconds["single"], seconds["several"], limit, unit="s", scale=1.0, values=values)
    single_process = [processes[0] for processes in computed["single"][1:]]
    busiest = [max(processes) for processes in computed["several"][1:]]
    yield paired(f"{what}: CPU time of the busiest", baseline, single_process, busiest, limit, unit="s", scale=1.0)


def cpu_seconds(algorithm: DistributedGreedy) -> list[float]:
    """Return the processor time so far of this process and of the workers that it started."""
    return [time.process_time(), *(_cpu_seconds_of(process.pid) for process in algorithm.processes)]


def _cpu_seconds_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(parser(), rows)
