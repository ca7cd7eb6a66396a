"""A training step of every algorithm and weights rule, compared with backprop with dense weights on the same model.

    OMP_NUM_THREADS=1 python benchmarks/algorithm_step.py [--groups algorithms rules_cnn ...] [--rounds 7] [--device cuda]
        [--json result.json]

Each side is what ``python train.py algorithm=<name> [algorithm/weights=<name>]`` would train, with SGD, on noise. Each row has
three ratios to its baseline: time, floating-point operations as counted in runs, and the peak of tensor bytes in a step. A row
whose time exceeds 1.25 times its FLOPs (the quarter is for element-wise work and calls) needs an explanation.

``algorithms``: 4 blocks of 3 x 3 convolutions (``greedy_cnn``, width 32), 32 x 32 images. Sequential greedy learning is the mean
over the stages; asynchronous updates the blocks in turn with buffers of one mini-batch; distributed uses one process.
``rules_cnn``, ``rules_mlp``: the same network; 784-300-100-10 with 100 steps per round, so that each has one structure update.
``energy_mlp``, ``energy_cnn``: the energy-based 784-512-512-10 and 5 x 5 convolutions 32, 64, T1 30, T2 10, compared with the
same layers as a feed-forward network under backprop, and with backpropagation through time (the last 10 steps).
``search``: one whole search over targets, with many fits of layers, compared with one step of backprop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from command_line import main, standard_parser
from measuring import Limit, Row, Timer, alternate, at_most, paired, repeated
from memory import peak_bytes
from omegaconf import OmegaConf
from subjects import CIFAR, MNIST, FeedForwardTwin, flops, noise, recipe, set_up, stepper
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.config.project import CONF
from altprop.names import class_of

SUITE = "--rounds 5"
QUICK = "--rounds 2 --tiny --groups algorithms rules_mlp energy_mlp search"

SGD = "optimizer=sgd optimizer.lr=0.001"
GREEDY_CNN = f"model=greedy_cnn {SGD}"
HARD = "model/units=sign_step"
OPTIONS = {
    "asynchronous_greedy": "algorithm.order=round_robin",
    "distributed_greedy": "algorithm.workers=1",
    "target_propagation": HARD,
}
"""What an algorithm needs in addition to its defaults."""
OWN_GROUPS = ("backprop", "target_search")
"""The baseline, and what has a group of its own below. So have the energy-based algorithms."""
PIPELINES = ("asynchronous_greedy", "delayed_gradients", "features_replay")
"""Algorithms that need some steps until every block trains."""
RULES = (
    "binary",
    "iterative_binary",
    "static_sparse",
    "dynamic_sparse",
    "set",
    "deep_r",
    "n_of_m",
    "structured_rigl",
    "rigl",
    "tied",
    "iterative_pruning",
)
PHASES = "algorithm.free_steps=30"
NUDGED = f"{PHASES} algorithm.nudge_steps=10"
ENERGY = {
    "equilibrium_propagation": NUDGED,
    "continual_equilibrium_propagation": NUDGED,
    "backprop_through_time": f"{PHASES} algorithm.differentiated_steps=10",
}
SEARCH = f"model=mlp model.hidden=[16] model.batch_norm=false {SGD}"

DENSE = "backprop"
FEED_FORWARD = "the same layers, feed-forward, backprop"
FLOPS = "1.25 times the FLOPs"
MASKED = {"rules_mlp": 1.35, "rules_cnn": 1.05}
BINARY = {"rules_mlp": 1.15, "rules_cnn": 1.05}
DEEP_R = {"rules_mlp": 1.35 * 1.5, "rules_cnn": 1.05 * 1.5}
COPIES = {"binary": 2, "iterative_binary": 2, "deep_r": 5}
"""Tensors of the size of the weights that a rule may hold in addition: the effective weight and its gradient; with masks (4, the
default) also the mask and a buffer of scores; DeepR also the signs."""


@dataclass(frozen=True)
class Side:
    """One side, ready to be timed: ``round`` takes ``steps`` training steps of ``flops`` FLOPs each; ``memory`` in bytes."""

    round: Callable[[], None]
    steps: int
    flops: float
    memory: int


@dataclass(frozen=True)
class Subject:
    """What a side measures: ``make`` sets up the algorithm; a round is ``steps`` calls.

    ``warm_up`` calls before the first round fill pipelines and buffers.
    """

    make: Callable[[], Algorithm]
    steps: int = 1
    warm_up: int = 1

    def prepare(self, batch: tuple[Tensor, Tensor]) -> Side:
        """Build the algorithm twice: alone to measure its memory, then to time it."""
        memory = peak_bytes(lambda: stepper(self.make(), batch)[0], batch[0].device, self.warm_up)
        step, steps_per_call = stepper(self.make(), batch)
        for _ in range(self.warm_up):
            step()
        return Side(partial(repeated, step, self.steps), self.steps * steps_per_call, flops(step) / steps_per_call, memory)


Bound = Callable[[str, float], Limit]
"""Takes the name of a row and its FLOP ratio and returns its limit."""


def by_flops(name: str, ratio: float) -> Limit:
    return at_most(1.25 * ratio, FLOPS)


def by_rule(group: str) -> Bound:
    """Return the targets of weights rules, whose FLOPs are those of dense weights."""

    def bound(name: str, ratio: float) -> Limit:
        if "binary" in name:
            return at_most(BINARY[group], "target for binary weights")
        if name == "deep_r":
            return at_most(DEEP_R[group], "1.5 times that for masked weights")
        return at_most(MASKED[group], "target for masked weights")

    return bound


def compare(
    subjects: Mapping[str, Subject],
    baselines: Mapping[str, str],
    mini_batch: tuple[Tensor, Tensor],
    bound: Bound,
    rounds: int,
    timer: Timer,
) -> Iterator[tuple[Row, Side]]:
    """Yield a row, and the side of its baseline, for every entry of ``baselines``; all sides take turns in the same rounds."""
    sides = {name: subject.prepare(mini_batch) for name, subject in subjects.items()}
    seconds = alternate({name: side.round for name, side in sides.items()}, rounds, timer)
    per_step = {name: [value / side.steps for value in seconds[name]] for name, side in sides.items()}
    for key, base in baselines.items():
        name = key.partition(" / ")[0]
        mine, other = sides[name], sides[base]
        ratio = mine.flops / other.flops
        facts: dict[str, Any] = {"flops": ratio, "memory": mine.memory / other.memory}
        facts["values"] = {"GFLOP": mine.flops / 1e9, "MiB": mine.memory / 2**20, "MiB of the baseline": other.memory / 2**20}
        yield paired(name, base, per_step[name], per_step[base], bound(name, ratio), **facts), other


def feed_forward_algorithms() -> list[str]:
    """Every ``conf/algorithm/*.yaml`` that names an algorithm for feed-forward networks."""
    names = sorted(file.stem for file in (CONF / "algorithm").glob("*.yaml"))
    return [name for name in names if name not in OWN_GROUPS and trains_feed_forward(name)]


def trains_feed_forward(name: str) -> bool:
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "algorithm" / f"{name}.yaml"))
    if "_target_" not in node:  # a variant of another file
        return trains_feed_forward(next(entry for entry in node["defaults"] if isinstance(entry, str)))
    cls = class_of(node)
    return cls is not None and issubclass(cls, Algorithm) and not cls.capabilities.needs_energy


def algorithms(args: argparse.Namespace, timer: Timer) -> Iterator[Row]:
    width, batch = (4, 4) if args.tiny else (32, 64)
    common = f"{GREEDY_CNN} model.width={width}"
    subjects = {DENSE: Subject(recipe(common.split(), CIFAR, batch, device=timer.device))}
    names = feed_forward_algorithms()
    for name in names:
        make = recipe(f"{common} algorithm={name} {OPTIONS.get(name, '')}".split(), CIFAR, batch, device=timer.device)
        subjects[name] = Subject(make, warm_up=6 if name in PIPELINES else 1)
    for row, _ in compare(subjects, dict.fromkeys(names, DENSE), noise(batch, CIFAR, timer.device), by_flops, args.rounds, timer):
        yield row


def rules(group: str) -> Callable[[argparse.Namespace, Timer], Iterator[Row]]:
    def measure(args: argparse.Namespace, timer: Timer) -> Iterator[Row]:
        mlp = group == "rules_mlp"
        shape = MNIST if mlp else CIFAR
        batch = 4 if args.tiny else 100 if mlp else 64
        steps = 1 if args.tiny or not mlp else 100
        common = f"model=mlp {SGD}" if mlp else f"{GREEDY_CNN} model.width={4 if args.tiny else 32}"
        subjects = {DENSE: Subject(recipe(common.split(), shape, batch, device=timer.device), steps)}
        for name in RULES:
            subjects[name] = Subject(
                recipe(f"{common} algorithm/weights={name}".split(), shape, batch, device=timer.device), steps
            )
        base = subjects[DENSE].make().model
        weights = sum(4 * parameter.numel() for parameter in base.parameters() if parameter.dim() > 1)
        results = compare(
            subjects, dict.fromkeys(RULES, DENSE), noise(batch, shape, timer.device), by_rule(group), args.rounds, timer
        )
        for row, dense in results:
            copies = COPIES.get(row.what, 4)
            limit = at_most(1 + copies * weights / dense.memory, f"{copies} copies of the weights")
            yield replace(row, what=f"{row.what}, {'MLP' if mlp else 'CNN'}", memory_limit=limit)

    return measure


def energy(group: str) -> Callable[[argparse.Namespace, Timer], Iterator[Row]]:
    def measure(args: argparse.Namespace, timer: Timer) -> Iterator[Row]:
        mlp = group == "energy_mlp"
        batch = 2 if args.tiny else 50 if mlp else 20
        model = "model=eqprop_mlp model.hidden=[512,512]" if mlp else "model=eqprop_cnn"
        makes = {
            name: recipe(f"{model} {SGD} algorithm={name} {more}".split(), MNIST, batch, device=timer.device)
            for name, more in ENERGY.items()
        }
        through_time = "backprop_through_time"

        def twin() -> Algorithm:
            return set_up(Backprop(), lambda: FeedForwardTwin(makes[through_time]().model), MNIST, batch, device=timer.device)

        subjects = {FEED_FORWARD: Subject(twin), **{name: Subject(make) for name, make in makes.items()}}
        baselines = {**dict.fromkeys(ENERGY, FEED_FORWARD), f"equilibrium_propagation / {through_time}": through_time}
        for row, _ in compare(subjects, baselines, noise(batch, MNIST, timer.device), by_flops, args.rounds, timer):
            yield replace(row, what=f"{row.what}, {'MLP' if mlp else 'CNN'}")

    return measure


def search(args: argparse.Namespace, timer: Timer) -> Iterator[Row]:
    batch = 10 if args.tiny else 100
    make = recipe(f"{SEARCH} algorithm=target_search {HARD}".split(), MNIST, batch, steps_per_epoch=1, device=timer.device)
    subjects = {
        DENSE: Subject(recipe(SEARCH.split(), MNIST, batch, device=timer.device), steps=20),
        "target_search": Subject(make, warm_up=0),
    }
    for row, _ in compare(subjects, {"target_search": DENSE}, noise(batch, MNIST, timer.device), by_flops, args.rounds, timer):
        yield row


GROUPS: dict[str, Callable[[argparse.Namespace, Timer], Iterator[Row]]] = {
    "algorithms": algorithms,
    "rules_cnn": rules("rules_cnn"),
    "rules_mlp": rules("rules_mlp"),
    "energy_mlp": energy("energy_mlp"),
    "energy_cnn": energy("energy_cnn"),
    "search": search,
}


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=7)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--tiny", action="store_true", help="use small networks and mini-batches, to test that everything runs")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for group in args.groups:
        yield from GROUPS[group](args, Timer(args.clock, torch.device(args.device)))


if __name__ == "__main__":
    main(parser(), rows)
