"""Training steps on a CPU whose process keeps the memory that it frees, compared with the C library's default.

    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py [--names convnet greedy ...] [--steps 5] [--rounds 3] [--json result.json]

Each side is a process of its own, because the setting (:mod:`altprop.allocator`) cannot be taken back. It trains what
``python train.py <overrides>`` would train, on noise; the time is the median of its steps after the first two. Memory is the
largest resident set of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, at_least, at_most, paired
from subjects import CIFAR, MNIST, Shape, noise, recipe, stepper

from altprop.allocator import keep_freed_memory

SUITE = "--rounds 3"
QUICK = "--rounds 1 --names perceptron --steps 1"

SGD = "optimizer=sgd optimizer.lr=0.001"
CONVNET = f"model=greedy_cnn {SGD}"
SUBJECTS: dict[str, tuple[str, Shape, int]] = {
    "convnet": (f"algorithm=backprop {CONVNET}", CIFAR, 128),
    "greedy": (f"algorithm=decoupled_greedy {CONVNET}", CIFAR, 128),
    "hard units": (f"algorithm=target_propagation {CONVNET} model/units=sign_step", CIFAR, 128),
    "equilibrium propagation": (f"algorithm=equilibrium_propagation model=eqprop_cnn {SGD}", CIFAR, 32),
    "perceptron": (f"algorithm=backprop model=mlp {SGD}", MNIST, 128),
}
"""Overrides, shape of the images and mini-batch."""
KEPT, DEFAULT = "kept", "default"
WARM_UP = 2


def child(name: str, side: str, steps: int) -> None:
    """Train in this process and print the seconds of a step and the largest resident set in MB."""
    torch.set_num_threads(1)
    if side == KEPT and not keep_freed_memory():
        sys.exit("the memory of this C library cannot be kept")
    overrides, shape, batch = SUBJECTS[name]
    step, steps_per_call = stepper(recipe(overrides.split(), shape, batch)(), noise(batch, shape))
    timer = Timer()
    seconds = [timer(step) / steps_per_call for _ in range(WARM_UP + steps)][WARM_UP:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": statistics.median(seconds), "megabytes": peak}))


def run_side(name: str, side: str, steps: int) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    line = [sys.executable, __file__, "--child", side, "--names", name, "--steps", str(steps)]
    done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=3)
    parser.add_argument("--names", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--steps", type=int, default=5, help="steps of which the median counts")
    parser.add_argument("--child", choices=(KEPT, DEFAULT), help="be one side of the first of --names")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for name in args.names:
        results: dict[str, list[dict[str, float]]] = {KEPT: [], DEFAULT: []}
        for number in range(args.rounds):
            for side in list(results)[:: -1 if number % 2 else 1]:
                results[side].append(run_side(name, side, args.steps))
        seconds = {side: [each["seconds"] for each in measured] for side, measured in results.items()}
        peaks = {side: statistics.median(each["megabytes"] for each in measured) for side, measured in results.items()}
        yield paired(
            f"step of {name}, freed memory is kept",
            "freed memory is returned (glibc's default)",
            seconds[DEFAULT],
            seconds[KEPT],
            at_least(0.97, "not slower"),
            values={f"MB, {side}": peak for side, peak in peaks.items()},
            memory=peaks[KEPT] / peaks[DEFAULT],
            memory_limit=at_most(1.3, "blocks of several sizes in one heap"),
        )


if __name__ == "__main__":
    arguments = parser().parse_args()
    if arguments.child:
        child(arguments.names[0], arguments.child, arguments.steps)
    else:
        main(parser(), rows)
