"""Time and peak memory of one training step with hard units, beside the same network with ReLU under backprop.

    OMP_NUM_THREADS=1 python benchmarks/target_propagation_step.py [--models convnet4 convnet8 resnet18] [--rounds 15]
        [--device cuda] [--json result.json]

Both sides are the project's own algorithms on noise, Adam with the fused kernel, batch 64. Rounds alternate between all sides;
ratios are formed round by round and their median is the result. Peak memory is what tensors hold: parameters, gradients and
optimizer state at the start of a step, and the largest sum of allocations less releases within it (on CUDA the allocator's own
peak). ``backprop + soft_hinge`` is the same training without the compact form of hard outputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation import TargetPropagation
from altprop.models.resnet import ResNet
from altprop.models.threshold_nets import ConvNet4, ConvNet8
from altprop.nn.estimators.straight_through import SaturatedStraightThrough
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.hard_units import SignStep, Staircase

SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 64
MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet4": ConvNet4,
    "convnet8": ConvNet8,
    "resnet18": partial(ResNet, stem="cifar"),
}
SIDES: dict[str, tuple[Callable[[], Algorithm], Callable[[], nn.Module]]] = {
    "relu": (Backprop, nn.ReLU),
    "sign, soft_hinge": (lambda: TargetPropagation(estimator=SoftHinge(), diagnostic_images=0), SignStep),
    "sign, saturated_ste": (lambda: TargetPropagation(estimator=SaturatedStraightThrough(), diagnostic_images=0), SignStep),
    "staircase3, soft_hinge": (lambda: TargetPropagation(estimator=SoftHinge(), diagnostic_images=0), partial(Staircase, 3)),
    "staircase3, saturated_ste": (
        lambda: TargetPropagation(estimator=SaturatedStraightThrough(), diagnostic_images=0),
        partial(Staircase, 3),
    ),
    "sign, soft_hinge, backprop": (lambda: Backprop(estimator=SoftHinge()), SignStep),
}


def make(model: str, side: str, device: torch.device) -> Algorithm:
    make_algorithm, units = SIDES[side]
    torch.manual_seed(0)
    algorithm = make_algorithm()
    net = MODELS[model](units=units, input_shape=SHAPE, num_classes=CLASSES).to(device)
    optimizer = partial(torch.optim.Adam, lr=2.5e-4, weight_decay=5e-4, fused=True)
    algorithm.setup(net, optimizer, Schedule(), Context(1, 1, device, 0, SHAPE, CLASSES, BATCH))
    algorithm.epoch_start(0)
    return algorithm


def seconds(algorithm: Algorithm, inputs: Tensor, targets: Tensor, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        algorithm.train_step(inputs, targets)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def peak_bytes(algorithm: Algorithm, inputs: Tensor, targets: Tensor) -> int:
    """Bytes of tensors at the worst moment of a step."""
    if inputs.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        algorithm.train_step(inputs, targets)
        return torch.cuda.max_memory_allocated()
    state = [value for group in algorithm.optimizers[0].optimizer.state.values() for value in group.values()]
    parameters = list(algorithm.model.parameters())
    held = [*parameters, *(value.grad for value in parameters if value.grad is not None), *algorithm.model.buffers(), *state]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        algorithm.train_step(inputs, targets)
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(tensor.nbytes for tensor in held) + max(accumulate(changes))


def compare(model: str, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    torch.manual_seed(1)
    inputs = torch.randn(BATCH, *SHAPE, device=device)
    targets = torch.randint(CLASSES, (BATCH,), device=device)
    algorithms = {side: make(model, side, device) for side in SIDES}
    for algorithm in algorithms.values():
        seconds(algorithm, inputs, targets, 3)
    memory = {}
    for side in SIDES:  # alone on the device, as nothing else of this process counts
        lone = make(model, side, device)
        lone.train_step(inputs, targets)
        memory[side] = peak_bytes(lone, inputs, targets)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, algorithm in algorithms.items():
            times[side].append(seconds(algorithm, inputs, targets, steps))
    result = {}
    for side in SIDES:
        ratios = [own / relu for own, relu in zip(times[side], times["relu"], strict=True)]
        result[side] = {
            "milliseconds": 1000 * statistics.median(times[side]),
            "time_ratio": statistics.median(ratios),
            "time_ratio_quartiles": statistics.quantiles(ratios, n=4)[::2] if rounds > 1 else ratios * 2,
            "peak_mib": memory[side] / 2**20,
            "memory_ratio": memory[side] / memory["relu"],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["convnet4", "convnet8"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    results: dict[str, Any] = {"torch": torch.__version__, "device": arguments.device, "batch": BATCH}
    for model in arguments.models:
        results[model] = compare(model, device, arguments.rounds, arguments.steps)
        print(f"{model:28s} {'ms':>8s} {'ratio':>7s} {'quartiles':>15s} {'peak MiB':>9s} {'ratio':>7s}")
        for side, row in results[model].items():
            low, high = row["time_ratio_quartiles"]
            print(
                f"{side:28s} {row['milliseconds']:8.1f} {row['time_ratio']:7.3f} {f'{low:.3f} to {high:.3f}':>15s} "
                f"{row['peak_mib']:9.1f} {row['memory_ratio']:7.3f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
