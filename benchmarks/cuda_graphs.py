"""Training steps that are replayed as CUDA graphs, compared with the same eager steps.

    python benchmarks/cuda_graphs.py --device cuda --clock wall [--cases backprop_mlp ...] [--rounds 7] [--steps 100]
        [--json result.json]

Both sides are what ``python train.py <overrides>`` trains, with ``trainer.cuda_graph=true`` and without, on one mini-batch of
noise, and take the same steps bit for bit. Perceptrons and small networks are bound by launches, which a graph saves. Without a
CUDA device nothing can be captured: the graph is then the step itself, and the rows show the cost of what surrounds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired, repeated
from subjects import CIFAR, MNIST, Shape, noise, recipe

from altprop.algorithms.graphs import WARM_UP
from altprop.algorithms.recorder import CudaRecorder, Recorder

SUITE = "--cases backprop_mlp --steps 20 --rounds 5"
QUICK = "--cases backprop_mlp --steps 5 --rounds 2"

R = TypeVar("R")
ADAM = "optimizer=adam +optimizer.fused=true"
SGD = "optimizer=sgd optimizer.lr=0.001 +optimizer.fused=true"
HARD = "model/units=sign_step algorithm.diagnostic_images=0"
CASES: dict[str, tuple[str, Shape, int, float]] = {
    "backprop_mlp": (f"model=mlp model.hidden=[300,100] {ADAM}", MNIST, 100, 3.0),
    "target_propagation_mlp": (f"algorithm=target_propagation model=mlp model.hidden=[300,100] {HARD} {ADAM}", MNIST, 100, 3.0),
    "decoupled_greedy_mlp": (f"algorithm=decoupled_greedy model=mlp model.hidden=[300,100] {ADAM}", MNIST, 100, 3.0),
    "eqprop_mlp": (f"algorithm=equilibrium_propagation model=eqprop_mlp {ADAM}", MNIST, 50, 3.0),
    "eqprop_cnn": (f"algorithm=equilibrium_propagation model=eqprop_cnn {SGD}", MNIST, 20, 1.5),
    "backprop_convnet": (f"model=convnet4 {SGD}", CIFAR, 64, 1.0),
}
"""Name -> overrides, shape of an image, mini-batch, and the target of the speed."""


class NoRecorder:
    """Repeats the step itself instead of a graph of it, where there is no CUDA device."""

    def warm_up(self, work: Callable[[], R]) -> R:
        """Run ``work``."""
        return work()

    def capture(self, work: Callable[[], None], generators: Iterable[torch.Generator]) -> Callable[[], None]:
        """Return ``work``."""
        work()
        return work


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=7)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=100, help="steps per round")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    on_cuda = device.type == "cuda"
    for name in args.cases:
        overrides, shape, size, target = CASES[name]
        batch = noise(size, shape, device)
        recorder: Recorder = CudaRecorder(device) if on_cuda else NoRecorder()
        eager, graphs = (recipe(overrides.split(), shape, size, device=device, recorder=each)() for each in (None, recorder))
        for _ in range(WARM_UP + 1):
            graphs.train_step(*batch)
        sides = {
            "eager": partial(repeated, partial(eager.train_step, *batch), args.steps),
            "graph": partial(repeated, partial(graphs.train_step, *batch), args.steps),
        }
        seconds = alternate(sides, args.rounds, Timer(args.clock, device))
        limit = (
            at_least(target, "target: no launches") if on_cuda else at_least(0.7, "no target: nothing is captured without CUDA")
        )
        what = f"{name}, batch {size}, {'graph' if on_cuda else 'no graph, what surrounds it'}"
        yield paired(what, "eager step", seconds["eager"], seconds["graph"], limit, scale=1e3 / args.steps)


if __name__ == "__main__":
    main(parser(), rows)
