"""Block-local algorithms compared with the same algorithms in plain PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/block_algorithms_step.py [--batch 64] [--width 32] [--rounds 7] [--device cuda]
        [--json result.json]

Both sides train the same blocks, heads and synthesizers with SGD on the same noise and make the same updates (a test compares
them): decoupled and sequential greedy learning, delayed gradients (DDG), features replay, synthetic gradients (DNI) and backprop.
The model has 4 blocks of 3 x 3 convolutions (``greedy_cnn``), images are 32 x 32. Measured are the time of a step and its peak of
tensor bytes.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial

import straightforward_greedy as plain
import torch
from command_line import main, standard_parser
from measuring import CPU, Row, Timer, alternate, at_most, paired
from memory import peak_bytes
from subjects import CIFAR, CLASSES, SGD, Shape, noise, set_up, stepper
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.models.base import FeedForward
from altprop.models.greedy_cnn import GreedyCNN

SUITE = "--rounds 5"
QUICK = "--rounds 2 --batch 2 --width 4"

WARM_UP = 5
"""Number of steps after which every block of the delayed algorithms trains."""

Step = Callable[[Tensor, Tensor], object]
ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "backprop": Backprop,
    "decoupled_greedy": DecoupledGreedy,
    "sequential_greedy": SequentialGreedy,
    "delayed_gradients": DelayedGradients,
    "features_replay": partial(DelayedGradients, semantics="replay"),
    "synthetic_gradients": SyntheticGradients,
}


def make(name: str, batch: int, width: int, shape: Shape = CIFAR, device: torch.device = CPU) -> Algorithm:
    model = partial(GreedyCNN, width=width, units=nn.ReLU, input_shape=shape, num_classes=CLASSES)
    return set_up(ALGORITHMS[name](), model, shape, batch, device=device)


def twin(algorithm: Algorithm) -> Step:
    """Return the straightforward side with copies of the modules of ``algorithm``."""
    algorithm = copy.deepcopy(algorithm)
    model = algorithm.model
    assert isinstance(model, FeedForward)
    if isinstance(algorithm, LocalLosses):
        return plain.Greedy(algorithm.blocks, [*algorithm.local_heads, model.head], SGD)
    if isinstance(algorithm, DelayedGradients):
        return plain.DelayedGradients(algorithm.modules, SGD, algorithm.semantics == "replay")
    if isinstance(algorithm, SyntheticGradients):
        synthesizers = [interface.synthesizer for interface in algorithm.interfaces]
        return plain.SyntheticGradients(algorithm.blocks, synthesizers, model.head, SGD)  # type: ignore[arg-type]
    return plain.EndToEnd(model, SGD)


def every_stage(step: Step, batch: tuple[Tensor, Tensor]) -> None:
    """Do on the straightforward side what ``stepper(algorithm, batch)[0]`` does: greedy learning takes a step in every stage."""
    if isinstance(step, plain.Greedy) and step.stage is not None:
        for stage, block in enumerate(step.blocks):
            step.stage = stage
            block.train()
            step(*batch)
    else:
        step(*batch)


def straightforward(name: str, batch: tuple[Tensor, Tensor], width: int) -> Callable[[], None]:
    """Return a training step of the straightforward side."""
    step = twin(make(name, len(batch[1]), width, device=batch[0].device))
    if name == "sequential_greedy":
        assert isinstance(step, plain.Greedy)
        step.stage = 0
    return partial(every_stage, step, batch)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    batch = noise(args.batch, CIFAR, device)
    for name in args.algorithms:
        ours = partial(lambda name: stepper(make(name, args.batch, args.width, device=device), batch)[0], name)
        theirs = partial(straightforward, name, batch, args.width)
        mine, other = (peak_bytes(side, device, WARM_UP) for side in (ours, theirs))
        seconds = alternate({"ours": ours(), "plain": theirs()}, args.rounds, Timer(args.clock, device), warm_up=WARM_UP)
        yield paired(
            name,
            "plain PyTorch",
            seconds["ours"],
            seconds["plain"],
            at_most(1.05, "the same work"),
            values={"MiB": mine / 2**20, "MiB of the baseline": other / 2**20},
            memory=mine / other,
            memory_limit=at_most(1.05, "the same tensors"),
        )


if __name__ == "__main__":
    main(parser(), rows)
