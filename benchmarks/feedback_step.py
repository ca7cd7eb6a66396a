"""A training step of feedback alignment and of direct feedback alignment, compared with backprop on the same network.

    OMP_NUM_THREADS=1 python benchmarks/feedback_step.py [--models mlp convnet] [--rounds 15] [--device cuda] [--json result.json]

``mlp`` is 784-512-512-10 on mini-batches of 100, ``convnet`` has four 3 x 3 convolutions (32, 64, 128, 128 channels, three
poolings) on 64 images of 32 x 32. Without batch norm, with ReLU and SGD. Rounds alternate between all sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_most, paired, repeated
from memory import peak_bytes
from subjects import CIFAR, CLASSES, MNIST, Shape, noise, set_up
from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.feedback.alignment import FeedbackAlignment
from altprop.algorithms.feedback.direct import DirectFeedbackAlignment
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP

SUITE = "--rounds 7 --clock process"
QUICK = "--rounds 2 --steps 1 --batch 2"

MODELS: dict[str, tuple[Callable[..., nn.Module], Shape, int, int]] = {
    "mlp": (partial(MLP, hidden=(512, 512), batch_norm=False), MNIST, 100, 20),
    "convnet": (partial(ConvNet, channels=(32, "pool", 64, "pool", 128, "pool", 128), batch_norm=False), CIFAR, 64, 1),
}
"""Model, images, mini-batch and steps in a round."""
BASELINE = "backprop"
SIDES: dict[str, tuple[Callable[[], Algorithm], float]] = {
    BASELINE: (Backprop, 1.0),
    "feedback_alignment": (FeedbackAlignment, 1.15),
    "feedback_alignment, uniform_sign": (partial(FeedbackAlignment, mode="uniform_sign"), 1.15),
    "feedback_alignment, batchwise_random_sign": (partial(FeedbackAlignment, mode="batchwise_random_sign"), 1.15),
    "feedback_alignment, fixed_random_sign": (partial(FeedbackAlignment, mode="fixed_random_sign"), 1.15),
    "direct_feedback_alignment": (DirectFeedbackAlignment, 1.0),
}
"""What is compared, and how long its step may take."""


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=15)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, help="in a round")
    parser.add_argument("--batch", type=int)
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    for model in args.models:
        build, shape, batch_size, steps = MODELS[model]
        batch = noise(args.batch or batch_size, shape, device)

        def make(side: str) -> Callable[[], object]:
            network = partial(build, units=nn.ReLU, input_shape=shape, num_classes=CLASSES)  # noqa: B023 (used within this pass)
            algorithm = set_up(SIDES[side][0](), network, shape, len(batch[1]), device=device)  # noqa: B023
            return partial(algorithm.train_step, *batch)  # noqa: B023

        memory = {side: peak_bytes(partial(make, side), device) for side in SIDES}
        work = {side: partial(repeated, make(side), args.steps or steps) for side in SIDES}
        seconds = alternate(work, args.rounds, Timer(args.clock, device), warm_up=2)
        for side, (_, limit) in SIDES.items():
            if side != BASELINE:
                yield paired(
                    f"{model}: {side}",
                    BASELINE,
                    seconds[side],
                    seconds[BASELINE],
                    at_most(limit, "target"),
                    memory=memory[side] / memory[BASELINE],
                )


if __name__ == "__main__":
    main(parser(), rows)
