"""What a structure update of sparse weights costs, and what sparse training steps cost over dense ones.

    OMP_NUM_THREADS=1 python benchmarks/sparse_structure_update.py [--rounds 9] [--json result.json]

Update: WRN-28-2 at sparsity 0.9. The other side is the obvious implementation, one tensor after the other with boolean index
assignments and sets of free positions; both start from the same weights and masks. Steps: mini-batches of 100, SGD with Nesterov
momentum, whole training steps of ``algorithm=backprop``. All sides alternate in one process with one thread; times are the
processor's, which other programs disturb less than the clock on the wall; ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.models.mlp import MLP
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.noise import LangevinNoise
from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse import StaticSparse
from altprop.nn.weights.sparse_dynamic import DynamicSparse
from altprop.nn.weights.sparse_strategies import (
    FractionPrune,
    ProportionalToSurvivors,
    Prune,
    RandomGrow,
    SignChangePrune,
    ThresholdPrune,
    WithinTensor,
)

WRN_DENSE = ("stem", "shortcut", "classifier")
MLP_SHAPE, WRN_SHAPE = (1, 28, 28), (3, 32, 32)


def set_up(rule: WeightsRule, shape: tuple[int, int, int]) -> Backprop:
    """``rule`` under backprop on the MNIST perceptron or on WRN-28-2."""
    torch.manual_seed(0)
    model: nn.Module
    if shape == MLP_SHAPE:
        model = MLP((300, 100), True, True, units=nn.ReLU, input_shape=shape, num_classes=10)
    else:
        model = WideResNet(28, 2, units=nn.ReLU, input_shape=shape, num_classes=10)
    algorithm = Backprop(weights=rule)
    algorithm.model = model
    sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    context = Context(
        steps_per_epoch=500,
        total_epochs=200,
        device=torch.device("cpu"),
        seed=0,
        input_shape=shape,
        num_classes=10,
        batch_size=100,
    )
    algorithm.setup(model, sgd, Schedule(), context)
    algorithm.epoch_start(0)
    return algorithm


class IndexSets:
    """The update as one would write it down: per tensor, boolean indexing, sets of positions, permutations of what is free."""

    def __init__(self, weights: list[Tensor], masks: list[Tensor], target: int | None, fraction: float) -> None:
        self.weights = [weight.detach().clone() for weight in weights]
        self.masks = [mask.clone() for mask in masks]
        self.target, self.fraction, self.threshold = target, fraction, 1e-3

    def prune(self, weight: Tensor, mask: Tensor) -> Tensor:
        """Positions that go."""
        active = (mask.view(-1) == 1).nonzero().view(-1)
        scores = weight.view(-1)[active].abs()
        if self.target is not None:
            gone = active[scores < self.threshold]
            gone = gone[1:] if len(gone) == len(active) else gone
        else:
            gone = active[scores.argsort()[: int(self.fraction * len(active)) + 1]]
        mask.view(-1)[gone] = 0
        weight[mask == 0] = 0
        return gone

    def grow(self, mask: Tensor, gone: Tensor, count: int) -> int:
        """Random free positions that were not pruned just now."""
        free = set((mask.view(-1) == 0).nonzero().view(-1).tolist()) - set(gone.tolist())
        candidates = torch.tensor(sorted(free), dtype=torch.int64)
        count = min(count, len(candidates))
        mask.view(-1)[candidates[torch.randperm(len(candidates))[:count]]] = 1
        return count

    def update(self) -> None:
        gone = [self.prune(weight, mask) for weight, mask in zip(self.weights, self.masks)]
        total = sum(len(indices) for indices in gone)
        if self.target is None:
            for mask, indices in zip(self.masks, gone):
                self.grow(mask, indices, len(indices))
            return
        survivors = [int(mask.sum()) for mask in self.masks]
        grown = 0
        while grown < total:
            rest = total - grown
            requests = [round(count / sum(survivors) * rest) for count in survivors]
            place = int(torch.randint(len(requests), ()))
            requests[place] = max(0, requests[place] + rest - sum(requests))
            grown += sum(self.grow(mask, indices, count) for mask, indices, count in zip(self.masks, gone, requests))
        if total > 1.1 * self.target:
            self.threshold /= 2
        elif total < 0.9 * self.target:
            self.threshold *= 2


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def compare_updates(rounds: int) -> dict[str, dict[str, float]]:
    results = {}
    kinds: dict[str, tuple[Callable[[], Prune], type, int | None]] = {
        "dynamic": (lambda: ThresholdPrune(20_000), ProportionalToSurvivors, 20_000),
        "set": (lambda: FractionPrune(0.138), WithinTensor, None),
    }
    for name, (prune, redistribute, target) in kinds.items():
        rule = DynamicSparse(0.9, prune(), redistribute(), RandomGrow(), {0: 100}, dense=WRN_DENSE)
        algorithm = set_up(rule, WRN_SHAPE)
        weights = rule.weights
        reference = IndexSets(list(weights.weights), [masking.mask for masking in weights.maskings], target, 0.138)
        optimizers = [step.optimizer for step in algorithm.optimizers]
        ours, theirs, step = [], [], 100
        for _ in range(rounds + 4):  # the first updates find the threshold
            for weight, twin in zip(weights.weights, reference.weights):
                change = torch.randn_like(weight) * 2e-3
                weight.data.add_(change)
                twin.add_(change)
            ours.append(seconds(partial(rule.step_end, step, optimizers)))
            theirs.append(seconds(reference.update))
            step += 100
        results[f"update_{name}"] = ratio(theirs[4:], ours[4:], "index sets", "altprop", 1e3, "ms")
    return results


def compare_steps(rounds: int, shape: tuple[int, int, int], rules: dict[str, WeightsRule], steps: int) -> dict[str, list[float]]:
    """Seconds per training step of every rule, alternating."""
    algorithms = {name: set_up(rule, shape) for name, rule in rules.items()}
    inputs, targets = torch.randn(100, *shape), torch.randint(10, (100,))
    times: dict[str, list[float]] = {name: [] for name in rules}
    for round_number in range(rounds + 1):
        for name, algorithm in algorithms.items():
            for _ in range(steps):
                elapsed = seconds(partial(algorithm.train_step, inputs, targets))
                if round_number:
                    times[name].append(elapsed)
    return times


def ratio(one: list[float], other: list[float], left: str, right: str, scale: float, unit: str) -> dict[str, float]:
    first, second = statistics.median(one), statistics.median(other)
    print(f"  {left} {first * scale:.2f} {unit}, {right} {second * scale:.2f} {unit}: ratio {first / second:.3f}")
    return {left: first, right: second, "ratio": first / second}


def deep_r() -> DynamicSparse:
    noise, penalty = LangevinNoise(0.01, {0: 1e-3}), Penalty(1e-5)
    return DynamicSparse(0.98, SignChangePrune(), WithinTensor(), RandomGrow(), {0: 1}, noise=noise, penalty=penalty, dense=())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("structure update, WRN-28-2, sparsity 0.9 (wanted: at least 50)")
    results = compare_updates(arguments.rounds)
    print("training steps of the MNIST perceptron (wanted: masked / dense at most 1.35, DeepR / static at most 1.5)")
    mlp = compare_steps(
        arguments.rounds, MLP_SHAPE, {"dense": Dense(), "static": StaticSparse(0.98, dense=()), "deep_r": deep_r()}, 40
    )
    results["mlp_masked"] = ratio(mlp["static"], mlp["dense"], "masked", "dense", 1e3, "ms")
    results["mlp_deep_r"] = ratio(mlp["deep_r"], mlp["static"], "DeepR", "static", 1e3, "ms")
    print("training steps of WRN-28-2 (wanted: masked / dense at most 1.05)")
    wrn = compare_steps(arguments.rounds, WRN_SHAPE, {"dense": Dense(), "static": StaticSparse(0.9, dense=WRN_DENSE)}, 1)
    results["wrn_masked"] = ratio(wrn["static"], wrn["dense"], "masked", "dense", 1.0, "s")
    share = results["update_dynamic"]["altprop"] / (100 * results["wrn_masked"]["masked"])
    print(f"update every 100 steps: {100 * share:.3f} % of the training time (wanted: below 1 %)")
    results["share"] = {"ratio": share}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
