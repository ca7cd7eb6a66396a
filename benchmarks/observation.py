"""Cost of observing a training: the alignment probe in a probed step, and counting FLOPs in the first step of an epoch.

    OMP_NUM_THREADS=1 python benchmarks/observation.py [--rounds 9] [--device cuda] [--json result.json]

For several algorithms: a step with the probe (``trainer.probe_every``) compared with a step without it, where the reference
gradient is one more forward and backward pass and the limit is the FLOPs of both; a step with counting compared with one without;
and an epoch of 600 steps whose first step is counted compared with an epoch without counting.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_most, paired, repeated
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
    parser.add_argument("--tiny", action="store_true", help="use small mini-batches, to test that everything runs")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    for name, (overrides, shape, size) in CASES.items():
        size = 4 if args.tiny else size
        algorithm = recipe(overrides.split(), shape, size, device=device)()
        batch = noise(size, shape, device)
        steps: dict[str, Callable[[], object]] = {
            "step": partial(algorithm.train_step, *batch),
            "probed": partial(AlignmentProbe(algorithm).step, *batch),
            "counted": partial(flops, partial(algorithm.train_step, *batch)),
        }
        times = 1 if args.tiny or name.endswith("CNN") else 10
        sides = {side: partial(repeated, step, times) for side, step in steps.items()}
        seconds = alternate(sides, args.rounds, Timer(args.clock, device), warm_up=2)
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
