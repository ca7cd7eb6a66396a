"""How time and memory of a training step grow with depth, width, mini-batch, relaxation steps and number of blocks.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--sweeps depth width ...] [--rounds 5] [--figure scaling.png]
        [--device cuda] [--json result.json]

Each row is a ratio to the smallest setting of its sweep. The limit of the time is the FLOPs of a step. The limit of the memory
(peak of tensor bytes in a step) is what the algorithm must keep: activations of every layer for backprop, and of one block for
decoupled greedy learning; states of one time step for equilibrium propagation, and of all differentiated steps for
backpropagation through time; (K + 1) / 2 passes on average for delayed gradients with K blocks.

``depth``, ``width``, ``batch``: 3 x 3 convolutions (``greedy_cnn``), 32 x 32 images. ``T2``: the number of nudged or
differentiated time steps, with T1 twice that; 5 x 5 convolutions on 28 x 28 images. ``blocks``: 8 layers divided into that many
blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from command_line import main, standard_parser
from measuring import Limit, Row, Timer, alternate, at_most, paired
from memory import peak_bytes
from subjects import CIFAR, MNIST, Shape, flops, noise, recipe, stepper
from torch import Tensor

from altprop.algorithms.base import Algorithm

SUITE = "--rounds 3"
QUICK = "--rounds 1 --tiny --sweeps depth T2 blocks"

SGD = "optimizer=sgd optimizer.lr=0.001"
TRAINED = {
    "backprop": "algorithm=backprop",
    "decoupled greedy": "algorithm=decoupled_greedy",
    "dynamic sparse": "algorithm/weights=dynamic_sparse",
}
BLOCKS = {"decoupled greedy": "algorithm=decoupled_greedy", "delayed gradients": "algorithm=delayed_gradients"}
PHASES = {
    "equilibrium propagation": "algorithm=equilibrium_propagation algorithm.nudge_steps={0} algorithm.free_steps={1}",
    "backpropagation through time": "algorithm=backprop_through_time algorithm.differentiated_steps={0} algorithm.free_steps={1}",
}
LAYERS = 8

MemoryLimit = Callable[[str, float, float], Limit]
"""Takes the subject, the ratio of the settings and the ratio of the FLOPs."""


@dataclass(frozen=True)
class Sweep:
    """One axis: settings in increasing order, subjects, and the overrides that train a subject at a setting."""

    settings: tuple[int, ...]
    tiny: tuple[int, ...]
    subjects: tuple[str, ...]
    overrides: Callable[[str, int], str]
    batch: Callable[[int], int]
    memory: MemoryLimit
    shape: Shape = CIFAR
    warm_up: int = 1


def of_layers(subject: str, setting: float, work: float) -> Limit:
    if subject == "decoupled greedy":
        return at_most(1.1 * setting, "weights of every layer")
    return at_most(1.1 * setting, "activations of every layer")


def of_width(subject: str, setting: float, work: float) -> Limit:
    return at_most(1.1 * max(setting, work), "activations; weights grow like the FLOPs")


def of_batch(subject: str, setting: float, work: float) -> Limit:
    return at_most(1.1 * setting, "activations of every sample")


def of_phases(subject: str, setting: float, work: float) -> Limit:
    if subject == "equilibrium propagation":
        return at_most(1.05, "states of one time step")
    return at_most(1.1 * setting, "states of all differentiated steps")


def of_blocks(subject: str, setting: float, work: float) -> Limit:
    if subject == "decoupled greedy":
        return at_most(1.1, "one block's graph at a time")
    return at_most(1.2 * (setting + 1) / 2, "(K + 1) / 2 passes, more of the large first block")


def _model(depth: int, width: int) -> str:
    return f"model=greedy_cnn model.depth={depth} model.width={width} model.downsample=[1] {SGD}"


SWEEPS: dict[str, Sweep] = {
    "depth": Sweep((2, 4, 8), (2, 4), tuple(TRAINED), lambda s, n: f"{_model(n, 32)} {TRAINED[s]}", lambda n: 16, of_layers),
    "width": Sweep((16, 32, 64), (2, 4), tuple(TRAINED), lambda s, n: f"{_model(4, n)} {TRAINED[s]}", lambda n: 16, of_width),
    "batch": Sweep((8, 32, 128), (1, 2), tuple(TRAINED), lambda s, n: f"{_model(4, 16)} {TRAINED[s]}", lambda n: n, of_batch),
    "T2": Sweep(
        (10, 20, 40), (2, 4), tuple(PHASES), lambda s, n: f"model=eqprop_cnn {PHASES[s].format(n, 2 * n)} {SGD}", lambda n: 4,
        of_phases, MNIST,
    ),
    "blocks": Sweep(
        (1, 2, 4, 8), (1, 2), tuple(BLOCKS), lambda s, n: f"{_model(LAYERS, 32)} {BLOCKS[s]} algorithm.block_size={LAYERS // n}",
        lambda n: 16, of_blocks, warm_up=9,
    ),
}  # fmt: skip


def _step(make: Callable[[], Algorithm], batch: tuple[Tensor, Tensor]) -> Callable[[], object]:
    return stepper(make(), batch)[0]


def measure(axis: str, sweep: Sweep, args: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of one sweep; all its sides take turns in the same rounds."""
    settings = sweep.tiny if args.tiny else sweep.settings
    timer = Timer(args.clock, torch.device(args.device))
    sides: dict[tuple[str, int], Callable[[], object]] = {}
    memory: dict[tuple[str, int], int] = {}
    work: dict[tuple[str, int], int] = {}
    for subject in sweep.subjects:
        for setting in settings:
            key, size = (subject, setting), 2 if args.tiny else sweep.batch(setting)
            make = recipe(sweep.overrides(subject, setting).split(), sweep.shape, size, device=timer.device)
            batch = noise(size, sweep.shape, timer.device)
            memory[key] = peak_bytes(partial(_step, make, batch), timer.device, sweep.warm_up)
            sides[key] = _step(make, batch)
            for _ in range(sweep.warm_up):
                sides[key]()
            work[key] = flops(sides[key])
    seconds = alternate({f"{subject} {setting}": side for (subject, setting), side in sides.items()}, args.rounds, timer)
    for subject in sweep.subjects:
        first = settings[0]
        for setting in settings[1:]:
            ratio = work[subject, setting] / work[subject, first]
            row = paired(
                f"{subject}, {axis} {setting}",
                f"{axis} {first}",
                seconds[f"{subject} {setting}"],
                seconds[f"{subject} {first}"],
                at_most(1.25 * ratio, "1.25 times the FLOPs"),
                values={"setting": setting, "smallest setting": first, "MiB": memory[subject, setting] / 2**20},
            )
            memory_limit = sweep.memory(subject, setting / first, ratio)
            memory_ratio = memory[subject, setting] / memory[subject, first]
            yield replace(row, flops=ratio, memory=memory_ratio, memory_limit=memory_limit)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5)
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--tiny", action="store_true", help="use small settings, to test that everything runs")
    parser.add_argument("--figure", type=Path, help="draw the ratios over the settings and write them to this PNG file")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    results = []
    for axis in args.sweeps:
        for row in measure(axis, SWEEPS[axis], args):
            results.append(row)
            yield row
    if args.figure:
        from scaling_figure import draw

        draw(results, args.figure)


if __name__ == "__main__":
    main(parser(), rows)
