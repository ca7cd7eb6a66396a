"""Cost of a structure update of sparse weights, and of sparse training steps compared with dense ones.

    OMP_NUM_THREADS=1 python benchmarks/sparse_structure_update.py [--rounds 9] [--device cuda] [--json result.json]

Update: WRN-28-2 at sparsity 0.9. The baseline is the obvious implementation, one tensor after another with boolean index
assignments, sets of free positions (in Python or NumPy) and permutations of them; all sides start from the same weights and
masks. Steps: mini-batches of 100, SGD with Nesterov momentum, whole training steps of ``algorithm=backprop``. All sides alternate
in one process with one thread. Times are processor time, which other programs disturb less than wall time; a ratio is formed in
every round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, at_most, paired, repeated
from subjects import CIFAR, CLASSES, MNIST, Shape, noise
from subjects import set_up as set_up_algorithm
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.models.mlp import MLP
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.grow import RandomGrow
from altprop.nn.weights.sparse.noise import LangevinNoise
from altprop.nn.weights.sparse.prune import FractionPrune, Prune, SignChangePrune, ThresholdPrune
from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors, WithinTensor
from altprop.nn.weights.sparse.static import StaticSparse

SUITE = "--rounds 5"
QUICK = "--rounds 1 --depth 10 --batch 2 --steps 2"

WRN_DENSE = ("stem", "shortcut", "classifier")
SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)

Times = dict[str, list[float]]


def set_up(rule: WeightsRule, shape: Shape, depth: int, batch: int, device: torch.device) -> Backprop:
    """Set up ``rule`` under backprop on the MNIST perceptron or on a WRN of ``depth`` layers and width 2."""
    make_model: Callable[..., nn.Module] = partial(WideResNet, depth=depth, width=2)
    if shape == MNIST:
        make_model = partial(MLP, hidden=(300, 100), batch_norm=True, batch_norm_logits=True)
    make_model = partial(make_model, units=nn.ReLU, input_shape=shape, num_classes=CLASSES)
    return set_up_algorithm(Backprop(weights=rule), make_model, shape, batch, SGD, device, steps_per_epoch=500)


def of_python(positions: Tensor, others: Tensor) -> Tensor:
    """Return the ``positions`` that are not in ``others``, with Python's sets."""
    return torch.tensor(sorted(set(positions.tolist()) - set(others.tolist())), dtype=torch.int64, device=positions.device)


def of_numpy(positions: Tensor, others: Tensor) -> Tensor:
    """Return the same with the usual NumPy function."""
    return torch.from_numpy(np.setdiff1d(positions.cpu().numpy(), others.cpu().numpy())).to(positions.device)


def of_numpy_unique(positions: Tensor, others: Tensor) -> Tensor:
    """Return the same with ``assume_unique``, which saves NumPy two sorts."""
    difference = np.setdiff1d(positions.cpu().numpy(), others.cpu().numpy(), assume_unique=True)
    return torch.from_numpy(difference).to(positions.device)


DIFFERENCES = {"Python": of_python, "NumPy": of_numpy, "NumPy with assume_unique": of_numpy_unique}


class IndexSets:
    """The obvious implementation: per tensor, boolean indexing, sets of positions, permutations of free positions."""

    def __init__(
        self,
        weights: list[Tensor],
        masks: list[Tensor],
        target: int | None,
        fraction: float,
        difference: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.difference = difference
        self.weights = [weight.detach().clone() for weight in weights]
        self.masks = [mask.clone() for mask in masks]
        self.target, self.fraction, self.threshold = target, fraction, 1e-3

    def prune(self, weight: Tensor, mask: Tensor) -> Tensor:
        """Prune and return the pruned positions."""
        active = (mask.view(-1) == 1).nonzero().view(-1)
        scores = weight.view(-1)[active].abs()
        if self.target is not None:
            pruned = active[scores < self.threshold]
            pruned = pruned[1:] if len(pruned) == len(active) else pruned
        else:
            pruned = active[scores.argsort()[: int(self.fraction * len(active)) + 1]]
        mask.view(-1)[pruned] = 0
        weight[mask == 0] = 0
        return pruned

    def grow(self, mask: Tensor, pruned: Tensor, count: int) -> int:
        """Grow weights at random free positions that were not just pruned; return their number."""
        candidates = self.difference((mask.view(-1) == 0).nonzero().view(-1), pruned)
        count = min(count, len(candidates))
        mask.view(-1)[candidates[torch.randperm(len(candidates), device=mask.device)[:count]]] = 1
        return count

    def update(self) -> None:
        pruned = [self.prune(weight, mask) for weight, mask in zip(self.weights, self.masks)]
        total = sum(len(positions) for positions in pruned)
        if self.target is None:
            for mask, positions in zip(self.masks, pruned):
                self.grow(mask, positions, len(positions))
            return
        survivors = [int(mask.sum()) for mask in self.masks]
        grown = 0
        while grown < total:
            rest = total - grown
            requests = [round(count / sum(survivors) * rest) for count in survivors]
            index = int(torch.randint(len(requests), ()))
            requests[index] = max(0, requests[index] + rest - sum(requests))
            grown += sum(self.grow(mask, positions, count) for mask, positions, count in zip(self.masks, pruned, requests))
        if total > 1.1 * self.target:
            self.threshold /= 2
        elif total < 0.9 * self.target:
            self.threshold *= 2


NO_TARGET = "no target; to notice slowdowns"
LIMITS = {(name, of): at_least(3, NO_TARGET) for name in ("dynamic", "set") for of in DIFFERENCES} | {
    ("dynamic", "Python"): at_least(50, "target"),
    ("dynamic", "NumPy"): at_least(50, "target"),
    ("set", "Python"): at_least(15, NO_TARGET),
}


def compare_updates(args: argparse.Namespace, timer: Timer) -> Iterator[Row]:
    kinds: dict[str, tuple[Callable[[], Prune], type, int | None]] = {
        "dynamic": (lambda: ThresholdPrune(target=20_000), ProportionalToSurvivors, 20_000),
        "set": (lambda: FractionPrune(fraction=0.138), WithinTensor, None),
    }
    for name, (prune, redistribute, target) in kinds.items():
        rule = DynamicSparse(
            sparsity=0.9, prune=prune(), redistribute=redistribute(), grow=RandomGrow(), period={0: 100}, dense=WRN_DENSE
        )
        algorithm = set_up(rule, CIFAR, args.depth, args.batch, timer.device)
        weights = rule.weights
        masks = [masking.mask for masking in weights.maskings]
        forms = {of: IndexSets(list(weights.weights), masks, target, 0.138, function) for of, function in DIFFERENCES.items()}
        optimizers = [step.optimizer for step in algorithm.optimizers]
        ours: list[float] = []
        theirs: dict[str, list[float]] = {of: [] for of in forms}
        for number in range(args.rounds + 4):  # the threshold settles in the first updates
            for weight, *twins in zip(weights.weights, *(form.weights for form in forms.values())):
                change = torch.randn_like(weight) * 2e-3
                for each in (weight.data, *twins):
                    each.add_(change)
            ours.append(timer(partial(rule.step_end, 100 * (number + 1), optimizers)))
            for of, form in forms.items():
                theirs[of].append(timer(form.update))
        for of, seconds in theirs.items():
            baseline = f"index sets of {of} per tensor"
            yield paired(f"structure update, {name}, WRN-{args.depth}-2", baseline, seconds[4:], ours[4:], LIMITS[name, of])


def compare_steps(args: argparse.Namespace, timer: Timer, shape: Shape, steps: int, rules: dict[str, WeightsRule]) -> Times:
    """Return the seconds of ``steps`` training steps for every rule, in each round."""
    batch = noise(args.batch, shape, timer.device)
    algorithms = {name: set_up(rule, shape, args.depth, args.batch, timer.device) for name, rule in rules.items()}
    sides = {name: partial(repeated, partial(algorithm.train_step, *batch), steps) for name, algorithm in algorithms.items()}
    return alternate(sides, args.rounds, timer)


def deep_r() -> DynamicSparse:
    noise, penalty = LangevinNoise(eta=0.01, temperature={0: 1e-3}), Penalty(coefficient=1e-5)
    return DynamicSparse(
        sparsity=0.98,
        prune=SignChangePrune(),
        redistribute=WithinTensor(),
        grow=RandomGrow(),
        period={0: 1},
        noise=noise,
        penalty=penalty,
        dense=(),
    )


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=9)
    parser.add_argument("--depth", type=int, default=28, help="depth of the WRN; default 28")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40, help="steps of the perceptron per round; default 40")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    timer = Timer(args.clock, torch.device(args.device))
    updates = list(compare_updates(args, timer))
    yield from updates
    rules: dict[str, WeightsRule] = {"dense": Dense(), "static": StaticSparse(sparsity=0.98, dense=()), "deep_r": deep_r()}
    mlp = compare_steps(args, timer, MNIST, args.steps, rules)
    scale = 1e3 / args.steps
    limit = at_most(1.35, "target: a product per weight, forward and backward")
    yield paired("masked step, MNIST perceptron", "dense step", mlp["static"], mlp["dense"], limit, scale=scale)
    limit = at_most(1.5, "target: signs, penalty and noise at every step")
    yield paired("DeepR step, MNIST perceptron", "static sparse step", mlp["deep_r"], mlp["static"], limit, scale=scale)
    wrn = compare_steps(args, timer, CIFAR, 1, {"dense": Dense(), "static": StaticSparse(sparsity=0.9, dense=WRN_DENSE)})
    limit = at_most(1.05, "target: a product per weight, forward and backward")
    masked = paired(f"masked step, WRN-{args.depth}-2", "dense step", wrn["static"], wrn["dense"], limit)
    yield masked
    share = updates[0].values["ms"] / (100 * masked.values["ms"])
    yield Row(
        "an update every 100 steps", "training without updates", 1 + share, at_most(1.01, "target"), values={"share": share}
    )


if __name__ == "__main__":
    main(parser(), rows)
