"""What looking at a training costs: the alignment probe in a probed step, and counting FLOPs in the first step of an epoch.

    OMP_NUM_THREADS=1 python benchmarks/observation.py [--rounds 9] [--json result.json]

A step with the probe (``trainer.probe_every``) beside the step without it, for several algorithms; the reference gradient is one
more forward and backward pass, so the FLOPs of both are the limit. A counted step beside one that is not counted; and an epoch of
600 steps with its first one counted beside an epoch without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from measuring import Row, Timer, alternate, at_most, main, paired, repeated, standard_parser
from subjects import CIFAR, MNIST, Shape, flops, noise, recipe

from altprop.algorithms.alignment_probe import AlignmentProbe

SUITE = "--rounds 7"
QUICK = "--rounds 2 --tiny"

STEPS_PER_EPOCH = 600
SGD = "optimizer=sgd optimizer.lr=0.001"
CASES: dict[str, tuple[str, Shape, int]] = {
    "backprop, MLP": (f"model=mlp {SGD}", MNIST, 100),
    "backprop, CNN": (f"model=greedy_cnn model.width=32 {SGD}", CIFAR, 64),
    "decoupled_greedy, CNN": (f"model=greedy_cnn model.width=32 algorithm=decoupled_greedy {SGD}", CIFAR, 64),
    "equilibrium_propagation, MLP": (
        f"model=eqprop_mlp algorithm=equilibrium_propagation algorithm.free_steps=30 {SGD}", MNIST, 50,
    ),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=9)
    parser.add_argument("--tiny", action="store_true", help="small mini-batches, to see that everything runs")
    return parser


def rows(given: argparse.Namespace) -> Iterator[Row]:
    for name, (overrides, shape, size) in CASES.items():
        size = 4 if given.tiny else size
        algorithm = recipe(overrides.split(), shape, size)()
        batch = noise(size, shape)
        steps: dict[str, Callable[[], object]] = {
            "step": partial(algorithm.train_step, *batch),
            "probed": partial(AlignmentProbe(algorithm).step, *batch),
            "counted": partial(flops, partial(algorithm.train_step, *batch)),
        }
        times = 1 if given.tiny or name.endswith("CNN") else 10
        sides = {side: partial(repeated, step, times) for side, step in steps.items()}
        seconds = alternate(sides, given.rounds, Timer(given.clock), warm_up=2)
        more = flops(steps["probed"]) / flops(steps["step"])
        limit = at_most(1.25 * more, "1.25 times the FLOPs")
        yield replace(
            paired(f"probed step, {name}", "step", seconds["probed"], seconds["step"], limit, scale=1e3 / times), flops=more
        )
        limit = at_most(1.5, "a Python call per operation")
        yield paired(
            f"step whose FLOPs are counted, {name}", "step", seconds["counted"], seconds["step"], limit, scale=1e3 / times
        )
        epochs = [STEPS_PER_EPOCH / times * step for step in seconds["step"]]
        counted = [epoch + (one - step) / times for epoch, one, step in zip(epochs, seconds["counted"], seconds["step"])]
        limit = at_most(1.005, "one step of 600")
        yield paired(f"epoch whose FLOPs are counted, {name}", "epoch of 600 steps", counted, epochs, limit, unit="s", scale=1.0)


if __name__ == "__main__":
    main(parser(), rows)
