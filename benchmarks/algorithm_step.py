"""A training step of every algorithm and every weights rule beside backprop with dense weights on the same model.

    OMP_NUM_THREADS=1 python benchmarks/algorithm_step.py [--groups algorithms rules_cnn ...] [--rounds 7] [--json result.json]

Everything is what ``python train.py algorithm=<name> [algorithm/weights=<name>]`` would train, with SGD, on noise. Each row has
three ratios to its baseline: time, floating-point operations as runs count them, and the peak of tensor bytes in a step. What
costs more time than its FLOPs say (times 1.25, for element-wise work and calls) deserves an explanation.

``algorithms``: 4 blocks of 3 x 3 convolutions (``greedy_cnn``, width 32), 32 x 32 images. Sequential greedy learning is the mean
over the stages, asynchronous the blocks in turn with buffers of one mini-batch, distributed one process.
``rules_cnn``, ``rules_mlp``: the same network; 784-300-100-10, with 100 steps a round and so one update of the structure.
``energy_mlp``, ``energy_cnn``: the energy-based 784-512-512-10 and 5 x 5 convolutions 32, 64, T1 30, T2 10, beside the same
layers as a feed-forward network under backprop, and beside backpropagation through time (its last 10 steps).
``search``: one whole search over targets, many fits of layers, beside one step of backprop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from measuring import CPU, Limit, Row, Timer, alternate, at_most, main, paired, repeated, standard_parser
from memory import peak_bytes
from subjects import CIFAR, MNIST, FeedForwardTwin, flops, noise, recipe, set_up, stepper
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm

SUITE = "--rounds 5"
QUICK = "--rounds 2 --tiny --groups algorithms rules_mlp energy_mlp search"

SGD = "optimizer=sgd optimizer.lr=0.001"
GREEDY_CNN = f"model=greedy_cnn {SGD}"
HARD = "model/units=sign_step"
ALGORITHMS = {
    "decoupled_greedy": "",
    "sequential_greedy": "",
    "asynchronous_greedy": "algorithm.order=round_robin",
    "distributed_greedy": "algorithm.workers=1",
    "synthetic_gradients": "",
    "delayed_gradients": "",
    "features_replay": "",
    "target_propagation": HARD,
}
PIPELINES = ("asynchronous_greedy", "delayed_gradients", "features_replay")
"""They need some steps until every block trains."""
RULES = (
    "binary",
    "iterative_binary",
    "static_sparse",
    "dynamic_sparse",
    "set",
    "deep_r",
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
"""What a rule may hold beside each weight: the weight in use and its gradient; with masks (4) also the mask and a buffer of
scores; DeepR the signs."""


@dataclass
class Subject:
    """One side: ``make`` sets an algorithm up; a round is ``steps`` steps, after ``warm_up`` that fill pipelines and buffers."""

    make: Callable[[], Algorithm]
    steps: int = 1
    warm_up: int = 1

    def prepare(self, batch: tuple[Tensor, Tensor]) -> None:
        """Build it twice: alone for its memory, and for its time."""
        self.memory = peak_bytes(lambda: stepper(self.make(), batch)[0], CPU, self.warm_up)
        self.step, self.per = stepper(self.make(), batch)
        for _ in range(self.warm_up):
            self.step()
        self.flops = flops(self.step) / self.per

    def round(self) -> None:
        repeated(self.step, self.steps)


Bound = Callable[[str, float], Limit]
"""From the name of a row and its FLOP ratio to its limit."""


def by_flops(name: str, ratio: float) -> Limit:
    return at_most(1.25 * ratio, FLOPS)


def by_rule(group: str) -> Bound:
    """The targets set for weights rules, whose FLOPs are those of dense weights."""

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
) -> Iterator[tuple[Row, Subject]]:
    """A row for every subject that ``baselines`` names a baseline for, all in the same rounds; and the baseline's subject."""
    for subject in subjects.values():
        subject.prepare(mini_batch)
    seconds = alternate({name: subject.round for name, subject in subjects.items()}, rounds, timer)
    per_step = {name: [value / subject.steps / subject.per for value in seconds[name]] for name, subject in subjects.items()}
    for key, base in baselines.items():
        name = key.partition(" / ")[0]
        mine, other = subjects[name], subjects[base]
        ratio = mine.flops / other.flops
        facts: dict[str, Any] = {"flops": ratio, "memory": mine.memory / other.memory}
        facts["values"] = {"GFLOP": mine.flops / 1e9, "MiB": mine.memory / 2**20, "MiB of the baseline": other.memory / 2**20}
        yield paired(name, base, per_step[name], per_step[base], bound(name, ratio), **facts), other


def algorithms(given: argparse.Namespace, timer: Timer) -> Iterator[Row]:
    width, batch = (4, 4) if given.tiny else (32, 64)
    common = f"{GREEDY_CNN} model.width={width}"
    subjects = {DENSE: Subject(recipe(common.split(), CIFAR, batch))}
    for name, more in ALGORITHMS.items():
        make = recipe(f"{common} algorithm={name} {more}".split(), CIFAR, batch)
        subjects[name] = Subject(make, warm_up=6 if name in PIPELINES else 1)
    for row, _ in compare(subjects, dict.fromkeys(ALGORITHMS, DENSE), noise(batch, CIFAR), by_flops, given.rounds, timer):
        yield row


def rules(group: str) -> Callable[[argparse.Namespace, Timer], Iterator[Row]]:
    def measure(given: argparse.Namespace, timer: Timer) -> Iterator[Row]:
        mlp = group == "rules_mlp"
        shape = MNIST if mlp else CIFAR
        batch = 4 if given.tiny else 100 if mlp else 64
        steps = 1 if given.tiny or not mlp else 100
        common = f"model=mlp {SGD}" if mlp else f"{GREEDY_CNN} model.width={4 if given.tiny else 32}"
        subjects = {DENSE: Subject(recipe(common.split(), shape, batch), steps)}
        for name in RULES:
            subjects[name] = Subject(recipe(f"{common} algorithm/weights={name}".split(), shape, batch), steps)
        base = subjects[DENSE].make().model
        weights = sum(4 * parameter.numel() for parameter in base.parameters() if parameter.dim() > 1)
        found = compare(subjects, dict.fromkeys(RULES, DENSE), noise(batch, shape), by_rule(group), given.rounds, timer)
        for row, dense in found:
            copies = COPIES.get(row.what, 4)
            limit = at_most(1 + copies * weights / dense.memory, f"{copies} copies of the weights")
            yield replace(row, what=f"{row.what}, {'MLP' if mlp else 'CNN'}", memory_limit=limit)

    return measure


def energy(group: str) -> Callable[[argparse.Namespace, Timer], Iterator[Row]]:
    def measure(given: argparse.Namespace, timer: Timer) -> Iterator[Row]:
        mlp = group == "energy_mlp"
        batch = 2 if given.tiny else 50 if mlp else 20
        model = "model=eqprop_mlp model.hidden=[512,512]" if mlp else "model=eqprop_cnn"
        makes = {name: recipe(f"{model} {SGD} algorithm={name} {more}".split(), MNIST, batch) for name, more in ENERGY.items()}
        through_time = "backprop_through_time"

        def twin() -> Algorithm:
            return set_up(Backprop(), lambda: FeedForwardTwin(makes[through_time]().model), MNIST, batch)

        subjects = {FEED_FORWARD: Subject(twin), **{name: Subject(make) for name, make in makes.items()}}
        baselines = {**dict.fromkeys(ENERGY, FEED_FORWARD), f"equilibrium_propagation / {through_time}": through_time}
        for row, _ in compare(subjects, baselines, noise(batch, MNIST), by_flops, given.rounds, timer):
            yield replace(row, what=f"{row.what}, {'MLP' if mlp else 'CNN'}")

    return measure


def search(given: argparse.Namespace, timer: Timer) -> Iterator[Row]:
    batch = 10 if given.tiny else 100
    make = recipe(f"{SEARCH} algorithm=target_search {HARD}".split(), MNIST, batch, steps_per_epoch=1)
    subjects = {DENSE: Subject(recipe(SEARCH.split(), MNIST, batch), steps=20), "target_search": Subject(make, warm_up=0)}
    for row, _ in compare(subjects, {"target_search": DENSE}, noise(batch, MNIST), by_flops, given.rounds, timer):
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
    parser.add_argument("--tiny", action="store_true", help="small nets and mini-batches, to see that everything runs")
    return parser


def rows(given: argparse.Namespace) -> Iterator[Row]:
    for group in given.groups:
        yield from GROUPS[group](given, Timer(given.clock))


if __name__ == "__main__":
    main(parser(), rows)
