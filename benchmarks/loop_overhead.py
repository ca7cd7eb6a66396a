"""What the training loop costs over a hand-written PyTorch loop doing the same work.

    OMP_NUM_THREADS=1 python benchmarks/loop_overhead.py [--steps 600] [--rounds 15] [--clock wall|cpu] [--json result.json]

Both sides train the 784-300-100-10 perceptron with batch 100 on the same images with the same fused Adam, shuffle every epoch,
normalise, and track loss and accuracy. The bare loop keeps its data as a normalised float tensor on the device and gathers each
mini-batch by index. Rounds alternate; the ratio is formed round by round, and its median is the result. `--clock cpu` counts
processor time, for machines that other jobs share.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.data.base import LoadContext
from altprop.data.in_memory import Images, InMemory, RawData
from altprop.models.mlp import MLP
from altprop.tracking.base import Tracker
from altprop.training.loop import Loop
from altprop.training.plan import Plan
from altprop.training.profiling import Profiler
from altprop.training.progress import Progress
from altprop.training.settings import TrainerSettings
from altprop.training.signals import StopRequests

BATCH = 100
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


Clock = Callable[[], float]


class RandomDigits(InMemory):
    """As many images as MNIST has, of noise: the cost of a step does not depend on what is in them."""

    title = "random digits"

    def read(self, root: Path) -> RawData:
        """60,000 training images and a few test images, which are not used."""
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, 60_000)
        return RawData(Images(pixels, labels), Images(pixels[:100], labels[:100]), tuple("0123456789"))


class NoSaver:
    """Stands in for the checkpoints, which neither side writes."""

    def save(self, *arguments: object, **options: object) -> None:
        """Nothing."""

    status = save


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return MLP(hidden=(300, 100), units=nn.ReLU, input_shape=(1, 28, 28), num_classes=10)


def bare(clock: Clock, model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, steps: int) -> float:
    """Seconds of the hand-written loop."""
    model.train()
    started = clock()
    loss_sum, correct, done = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
    while done < steps:
        order = torch.randperm(len(targets))
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
    return clock() - started


def ours(clock: Clock, loop: Loop, steps: int) -> float:
    """Seconds of the project's loop, going on where it stood."""
    loop.plan = Plan(loop.plan.steps_per_epoch, loop.progress.step + steps, BATCH, None, None)
    started = clock()
    loop.run(StopRequests())
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of a round; an epoch has 600")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clock = CLOCKS[arguments.clock]

    data_set = RandomDigits(batch_size=BATCH, eval_batch_size=1000, mean=[0.1307], std=[0.3081])
    data = data_set.load(LoadContext(Path("."), torch.device("cpu"), 0))
    order_free = list(data.train_plain.batches())
    images, targets = torch.cat([x for x, _ in order_free]), torch.cat([y for _, y in order_free])
    adam = partial(torch.optim.Adam, lr=1e-3, fused=True)

    model = make_model()
    optimizer = adam(model.parameters())
    algorithm = Backprop()
    steps_per_epoch = len(data.train)
    context = Context(steps_per_epoch, 1000, torch.device("cpu"), 0, data.input_shape, data.num_classes, BATCH)
    algorithm.setup(make_model(), adam, Schedule(), context)
    empty = type("NoData", (), {"batches": lambda self: iter(()), "__len__": lambda self: 0})()
    without_test = type(data)(data.train, data.train_plain, None, empty, data.input_shape, data.num_classes, data.class_names)
    loop = Loop(
        algorithm,
        without_test,
        TrainerSettings(),
        Plan(steps_per_epoch, 0, BATCH, None, None),
        Progress(),
        Tracker(),
        NoSaver(),
        Profiler(None, Path(".")),
    )
    bare(clock, model, optimizer, images, targets, 100)
    ours(clock, loop, 100)
    ratios, seconds = [], {"bare": [], "altprop": []}
    for number in range(arguments.rounds):
        order = ("bare", "altprop") if number % 2 == 0 else ("altprop", "bare")
        measured = {}
        for side in order:
            measured[side] = (
                bare(clock, model, optimizer, images, targets, arguments.steps)
                if side == "bare"
                else ours(clock, loop, arguments.steps)
            )
        for side, value in measured.items():
            seconds[side].append(value)
        ratios.append(measured["altprop"] / measured["bare"])
    result = {
        "benchmark": "loop_overhead",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "clock": arguments.clock,
        "microseconds_per_step": {
            side: round(statistics.median(values) / arguments.steps * 1e6, 1) for side, values in seconds.items()
        },
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "limit": 1.05,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
