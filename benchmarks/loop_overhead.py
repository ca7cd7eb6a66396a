"""Overhead of the training loop over a hand-written PyTorch loop that does the same work.

    OMP_NUM_THREADS=1 python benchmarks/loop_overhead.py [--steps 600] [--rounds 15] [--clock wall|process] [--device cuda]
        [--json result.json]

Both sides train the 784-300-100-10 perceptron with batch 100 on the same images with the same fused Adam, shuffle every epoch,
normalize, and track loss and accuracy. The bare loop keeps its data as a normalized float tensor on the device and gathers each
mini-batch by index. Rounds alternate; the ratio is formed in every round, and its median is the result. `--clock process`
measures processor time, for machines shared with other jobs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import main, standard_parser
from measuring import CPU, Row, Timer, alternate, at_most, paired
from subjects import CLASSES, MNIST, set_up
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.data.base import Data, LoadContext
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.models.mlp import MLP
from altprop.tracking.base import Tracker
from altprop.training.cost import StepCosts
from altprop.training.loop import Loop
from altprop.training.plan import Plan
from altprop.training.profiling import Profiler
from altprop.training.progress import Progress
from altprop.training.settings import TrainerSettings
from altprop.training.signals import StopRequests

SUITE = "--rounds 7 --clock process"
QUICK = "--steps 5 --rounds 2"

BATCH = 100
ADAM = partial(torch.optim.Adam, lr=1e-3, fused=True)


class RandomDigits(InMemory):
    """Noise images, as many as in MNIST: the cost of a step does not depend on their content."""

    title = "random digits"

    def read(self, root: Path) -> RawData:
        """Return 60,000 training images and a few test images, which are not used."""
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, 60_000)
        return RawData(Images(pixels, labels), Images(pixels[:100], labels[:100]), tuple("0123456789"))


class NoSaver:
    """Replaces the writing of checkpoints, which neither side does."""

    def save(self, *arguments: object, **options: object) -> None:
        """Do nothing."""

    status = save


def make_model(device: torch.device = CPU) -> nn.Module:
    torch.manual_seed(0)
    return MLP(hidden=(300, 100), units=nn.ReLU, input_shape=MNIST, num_classes=CLASSES).to(device)


def bare(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, steps: int) -> None:
    """The hand-written loop."""
    model.train()
    device = targets.device
    loss_sum, correct, done = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device), 0
    while done < steps:
        order = torch.randperm(len(targets), device=device)
        for first in range(0, len(targets), BATCH):
            index = order[first : first + BATCH]
            x, y = images[index], targets[index]
            optimizer.zero_grad(set_to_none=True)
            scores = model(x)
            loss = nn.functional.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(y)
            correct += (scores.argmax(dim=1) == y).sum()
            done += 1
            if done == steps:
                break
    float(loss_sum), int(correct)


def ours(loop: Loop, steps: int) -> None:
    """Run altprop's loop for ``steps`` more steps."""
    loop.plan = Plan(loop.plan.steps_per_epoch, loop.progress.step + steps, loop.plan.batch_size, None, None)
    loop.run(StopRequests())


def make_loop(data: Data, device: torch.device = CPU) -> Loop:
    """Return altprop's loop on ``data``, without a test split, trackers or checkpoints."""
    steps_per_epoch = len(data.train)
    algorithm = set_up(Backprop(), make_model, MNIST, BATCH, ADAM, device, steps_per_epoch=steps_per_epoch, total_epochs=1000)
    return loop_on(algorithm, data, BATCH)


def loop_on(algorithm: Algorithm, data: Data, batch: int) -> Loop:
    """Return altprop's loop of ``algorithm``, without a test split, trackers or checkpoints."""
    empty: Any = type("NoData", (), {"batches": lambda self: iter(()), "__len__": lambda self: 0})()
    saver: Any = NoSaver()
    plan = Plan(len(data.train), 0, batch, None, None)
    without_test = replace(data, validation=None, test=empty)
    profiler = Profiler(None, Path("."))
    return Loop(algorithm, without_test, TrainerSettings(), plan, Progress(), Tracker(), saver, profiler, StepCosts())


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=15, clock="wall")
    parser.add_argument("--steps", type=int, default=600, help="steps per round; an epoch has 600")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    data_set = RandomDigits(batch_size=BATCH, eval_batch_size=1000, mean=[0.1307], std=[0.3081])
    device = torch.device(args.device)
    data = data_set.load(LoadContext(Path("."), device, 0))
    in_order = list(data.train_plain.batches())
    images, targets = torch.cat([x for x, _ in in_order]), torch.cat([y for _, y in in_order])
    model = make_model(device)
    sides = {
        "bare": partial(bare, model, ADAM(model.parameters()), images, targets, args.steps),
        "altprop": partial(ours, make_loop(data, device), args.steps),
    }
    seconds = alternate(sides, args.rounds, Timer(args.clock, device))
    limit = at_most(1.05, "target: the same work")
    unit, scale = "µs per step", 1e6 / args.steps
    what = "training loop, MNIST perceptron, batch 100"
    yield paired(what, "bare PyTorch loop", seconds["altprop"], seconds["bare"], limit, unit=unit, scale=scale)


if __name__ == "__main__":
    main(parser(), rows)
