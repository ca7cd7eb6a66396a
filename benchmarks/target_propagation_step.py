"""Time and peak memory of a training step with hard units, compared with the same network with ReLU under backprop.

    OMP_NUM_THREADS=1 python benchmarks/target_propagation_step.py [--models convnet4 convnet8 resnet18] [--rounds 15]
        [--device cuda] [--json result.json]

All sides are altprop's algorithms on noise, with fused Adam and batch 64. Rounds alternate between all sides; a ratio is formed
in every round, and the median is the result. Peak memory is the maximum that tensors hold during a step: parameters, gradients,
optimizer state, activations and temporaries. ``sign, soft_hinge, backprop`` is the same training without the compact form of hard
outputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_most, paired, repeated
from memory import peak_bytes
from subjects import CIFAR, CLASSES, noise, set_up
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.models.resnet import ResNet
from altprop.models.threshold_nets import ConvNet4, ConvNet8
from altprop.nn.estimators.straight_through import SaturatedStraightThrough
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.units.hard import SignStep, Staircase

SUITE = "--models convnet4 --rounds 5 --clock process"
QUICK = "--models convnet4 --rounds 2 --steps 1 --batch 1"

MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet4": ConvNet4,
    "convnet8": ConvNet8,
    "resnet18": partial(ResNet, stem="cifar"),
}
BASELINE = "relu"
SIDES: dict[str, tuple[Callable[[], Algorithm], Callable[[], nn.Module]]] = {
    BASELINE: (Backprop, nn.ReLU),
    "sign, soft_hinge": (lambda: TargetPropagation(estimator=SoftHinge(), diagnostic_images=0), SignStep),
    "sign, saturated_ste": (lambda: TargetPropagation(estimator=SaturatedStraightThrough(), diagnostic_images=0), SignStep),
    "staircase3, soft_hinge": (
        lambda: TargetPropagation(estimator=SoftHinge(), diagnostic_images=0),
        partial(Staircase, steps=3),
    ),
    "staircase3, saturated_ste": (
        lambda: TargetPropagation(estimator=SaturatedStraightThrough(), diagnostic_images=0),
        partial(Staircase, steps=3),
    ),
    "sign, soft_hinge, backprop": (lambda: Backprop(estimator=SoftHinge()), SignStep),
}
ADAM = partial(torch.optim.Adam, lr=2.5e-4, weight_decay=5e-4, fused=True)


def make(model: str, side: str, batch: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """Return a training step of ``side``."""
    make_algorithm, units = SIDES[side]
    make_model = partial(MODELS[model], units=units, input_shape=CIFAR, num_classes=CLASSES)
    algorithm = set_up(make_algorithm(), make_model, CIFAR, len(batch[1]), ADAM, batch[0].device)
    return partial(algorithm.train_step, *batch)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=15, clock="wall")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["convnet4", "convnet8"])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    batch = noise(args.batch, CIFAR, device)
    for model in args.models:
        memory = {side: peak_bytes(partial(make, model, side, batch), device) for side in SIDES}
        steps = {side: partial(repeated, make(model, side, batch), args.steps) for side in SIDES}
        seconds = alternate(steps, args.rounds, Timer(args.clock, device), warm_up=2)
        for side in SIDES:
            if side == BASELINE:
                continue
            values = {"MiB": memory[side] / 2**20, "MiB of the baseline": memory[BASELINE] / 2**20}
            yield paired(
                f"{model}: {side}",
                "relu, backprop",
                seconds[side],
                seconds[BASELINE],
                at_most(1.15, "target: the same FLOPs"),
                scale=1e3 / args.steps,
                values=values,
                memory=memory[side] / memory[BASELINE],
                memory_limit=at_most(1.05, "target"),
            )


if __name__ == "__main__":
    main(parser(), rows)
