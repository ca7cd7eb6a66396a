"""One training mini-batch of equilibrium propagation against the straightforward published form, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/equilibrium_propagation_step.py [--cases mnist_mlp mnist_cnn cifar_cnn] [--rounds 5]
        [--device cuda] [--options] [--json result.json]

The straightforward side, written here, differentiates the primitive function by autograd at every time step, runs the phases
one after the other, computes the input's drive every time and contrasts two derivatives. Both sides take the same mini-batch
through the same phases, gradient and optimizer step. Rounds alternate; the ratio is formed round by round, its median is the
result. Before that, both sides' gradients are compared in float64 and, with ``--options``, what each option costs in accuracy.

``cifar_cnn`` is the paper's ConvNet with batch 128, T1 250 and T2 2 x 30 on CUDA. On a CPU that takes minutes a mini-batch, so
there the batch is 16 and the phases are 50 and 2 x 6 steps long; time per step does not depend on their lengths.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from altprop.algorithms.context import Context
from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.schedule import Schedule
from altprop.models.energy import EnergyConvNet, EnergyMLP, EnergyModel


@dataclass(frozen=True)
class Case:
    """A row of the paper: model, phases and optimizer."""

    model: Callable[[], EnergyModel]
    batch: int
    shape: tuple[int, int, int]
    free_steps: int
    nudge_steps: int
    beta: float
    symmetric: bool
    optimizer: Callable[..., torch.optim.Optimizer]


MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
CIFAR_NET = partial(
    EnergyConvNet, (128, 256, 512, 512), (3,) * 4, (1,) * 4, (1, 1, 1, 0), ("max",) * 4, (), "half_slope_hard_sigmoid",
    input_shape=CIFAR, num_classes=10,
)  # fmt: skip
CASES = {
    "mnist_mlp": Case(
        partial(EnergyMLP, (512,), input_shape=MNIST, num_classes=10), 50, MNIST, 30, 10, 0.1, False,
        partial(torch.optim.Adam, lr=5e-4, fused=True),
    ),
    "mnist_cnn": Case(
        partial(EnergyConvNet, activation="hard_sigmoid", input_shape=MNIST, num_classes=10), 100, MNIST, 200, 10, 0.4, False,
        partial(torch.optim.Adam, lr=1e-5, fused=True),
    ),
    "cifar_cnn": Case(CIFAR_NET, 128, CIFAR, 250, 30, 0.5, True, partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)),
}  # fmt: skip
CIFAR_ON_CPU = {"batch": 16, "free_steps": 50, "nudge_steps": 6}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tf32": {"precision": "tf32"},
    "bf16 convolutions": {"precision": "bf16"},
    "early exit at 1e-6": {"tolerance": 1e-6},
    "red-black, 60 + 2 x 20 sweeps": {"update_order": "red_black", "free_steps": 60, "nudge_steps": 20},
    "compiled": {"compile": True},
    "all of tf32, early exit, red-black": {
        "precision": "tf32", "tolerance": 1e-6, "update_order": "red_black", "free_steps": 60, "nudge_steps": 20
    },
    "all of them, compiled": {
        "precision": "tf32", "tolerance": 1e-6, "update_order": "red_black", "free_steps": 60, "nudge_steps": 20, "compile": True,
    },
}  # fmt: skip


class Straightforward:
    """The published form: ``Phi`` is written down once, and autograd does the rest."""

    def __init__(self, model: EnergyModel, case: Case) -> None:
        self.model, self.case = model, case
        self.optimizer = case.optimizer(model.parameters())

    def phi(self, inputs: Tensor, targets: Tensor, states: list[Tensor], beta: float) -> Tensor:
        """The primitive function of every sample, ``[batch]``."""
        below, total = inputs, torch.zeros((), device=inputs.device, dtype=inputs.dtype)
        for edge, layer, state in zip(self.model.edges, self.model.layers, states, strict=True):
            drive = layer(below if edge.is_convolution else below.flatten(1))
            drive = functional.max_pool2d(drive, 2) if edge.pool == "max" else drive
            total = total + (drive * state).flatten(1).sum(dim=1)
            below = state
        if beta:
            one_hot = functional.one_hot(targets, states[-1].shape[1]).to(inputs.dtype)
            total = total - beta * 0.5 * (states[-1] - one_hot).square().sum(dim=1)
        return total

    def run(self, inputs: Tensor, targets: Tensor, states: list[Tensor], steps: int, beta: float) -> list[Tensor]:
        """``steps`` time steps, each with its own graph."""
        for _ in range(steps):
            leaves = [state.detach().requires_grad_() for state in states]
            drives = torch.autograd.grad(self.phi(inputs, targets, leaves, beta).sum(), leaves)
            states = [self.model.activation(drive) for drive in drives]
        return states

    def train_step(self, inputs: Tensor, targets: Tensor) -> None:
        """Free phase, nudged phases one after the other, contrast of two derivatives, optimizer."""
        case = self.case
        zeros = [inputs.new_zeros(len(targets), *shape) for shape in self.model.state_shapes]
        free = self.run(inputs, targets, zeros, case.free_steps, 0.0)
        upper = self.run(inputs, targets, free, case.nudge_steps, case.beta)
        lower, beta = free, 0.0
        if case.symmetric:
            lower, beta = self.run(inputs, targets, free, case.nudge_steps, -case.beta), -case.beta
        self.optimizer.zero_grad()
        difference = self.phi(inputs, targets, upper, case.beta).mean() - self.phi(inputs, targets, lower, beta).mean()
        (-difference / (case.beta - beta)).backward()
        self.optimizer.step()


def closed_form(model: EnergyModel, case: Case, device: torch.device, **options: Any) -> EquilibriumPropagation:
    """altprop's own algorithm on the same row."""
    runtime = {name: options.pop(name) for name in ("precision", "compile") if name in options}
    settings = {"free_steps": case.free_steps, "nudge_steps": case.nudge_steps, **options}
    algorithm = EquilibriumPropagation(beta=case.beta, nudging="symmetric" if case.symmetric else "one_sided", **settings)
    context = Context(1, 1, device, 0, case.shape, 10, case.batch, **runtime)
    algorithm.setup(model, case.optimizer, Schedule(), context)
    return algorithm


def mini_batch(case: Case, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(case.batch, *case.shape, generator=generator, dtype=torch.float64)
    return inputs.to(device, dtype), torch.randint(10, (case.batch,), generator=generator).to(device)


def make_model(case: Case, device: torch.device, dtype: torch.dtype = torch.float32) -> EnergyModel:
    torch.manual_seed(0)
    return case.model().to(device, dtype)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time on CUDA; on a CPU with one thread processor time, which other processes disturb less."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def gradients(side: Straightforward | EquilibriumPropagation, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    side.train_step(inputs, targets)
    return {name: parameter.grad.detach().double() for name, parameter in side.model.named_parameters()}  # type: ignore[union-attr]


def error(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Relative distance of every weight's gradient from ``truth``."""
    return {
        name: float((found[name].to(value.device) - value).norm() / value.norm())
        for name, value in truth.items()
        if "weight" in name
    }


def agreement(case: Case, device: torch.device) -> dict[str, dict[str, float]]:
    """Relative differences of the gradients: between the sides in float64, and of each side in float32 from float64."""
    short = replace(case, batch=4, free_steps=min(case.free_steps, 40), nudge_steps=min(case.nudge_steps, 10))
    results: dict[str, dict[str, Tensor]] = {}
    for dtype, bits in ((torch.float64, 64), (torch.float32, 32)):
        model, batch = make_model(short, device, dtype), mini_batch(short, device, dtype)
        results[f"straightforward {bits}"] = gradients(Straightforward(copy.deepcopy(model), short), *batch)
        results[f"closed form {bits}"] = gradients(closed_form(model, short, device), *batch)
    truth = results["straightforward 64"]
    return {name: error(result, truth) for name, result in results.items() if name != "straightforward 64"}


def measure(case: Case, device: torch.device, rounds: int, **options: Any) -> dict[str, float]:
    """Median milliseconds of both sides and the median ratio."""
    batch = mini_batch(case, device)
    plain, ours = Straightforward(make_model(case, device), case), closed_form(make_model(case, device), case, device, **options)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    times: list[tuple[float, float]] = []
    for count in range(rounds + 1):
        first = seconds(lambda: plain.train_step(*batch), device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.get("precision") == "tf32"
        second = seconds(lambda: ours.train_step(*batch), device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if count:
            times.append((first, second))
    return {
        "straightforward_ms": 1e3 * statistics.median(first for first, _ in times),
        "closed_form_ms": 1e3 * statistics.median(second for _, second in times),
        "ratio": statistics.median(first / second for first, second in times),
    }


def convolution_limit(case: Case, device: torch.device, rounds: int) -> float:
    """Milliseconds of the convolutions alone, one forward and one transposed for every edge and step, in the faster layout."""
    model = make_model(case, device)
    phases = 2 if case.symmetric else 1
    total = 0.0
    for edge, layer in list(zip(model.edges, model.layers, strict=True))[1:]:
        if not edge.is_convolution:
            continue
        choices = []
        for layout in (torch.channels_last, torch.contiguous_format):
            weight = layer.weight.detach().contiguous(memory_format=layout)
            below = torch.rand(case.batch, *edge.below, device=device).contiguous(memory_format=layout)
            above = torch.rand(case.batch, *edge.unpooled, device=device).contiguous(memory_format=layout)

            def pair(below: Tensor = below, above: Tensor = above, weight: Tensor = weight, padding: int = edge.padding) -> None:
                functional.conv2d(below, weight, padding=padding)
                functional.conv_transpose2d(above, weight, padding=padding)

            pair()
            choices.append(statistics.median(seconds(pair, device) for _ in range(rounds)))
        total += min(choices)
    return 1e3 * total * (case.free_steps + phases * case.nudge_steps)


def option_costs(case: Case, device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Speed of every option, and how far its gradient lies from that of full phases in float64."""
    few = replace(case, batch=4)
    truth = gradients(closed_form(make_model(few, device, torch.float64), few, device), *mini_batch(few, device, torch.float64))
    costs = {}
    for name, options in OPTIONS.items():
        if device.type != "cuda" and (options.get("precision") == "tf32" or options.get("compile")):
            continue
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.get("precision") == "tf32"
        found = gradients(closed_form(make_model(few, device), few, device, **options), *mini_batch(few, device))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        costs[name] = {**measure(case, device, rounds, **options), **error(found, truth)}
        print(f"  {name}: {costs[name]['ratio']:.2f} times faster; gradient errors", errors_in_words(error(found, truth)))
    return costs


def errors_in_words(errors: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('layers.').removesuffix('.weight')}: {value:.1e}" for name, value in errors.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--options", action="store_true", help="measure every option of the last case, too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    results: dict[str, Any] = {"torch": torch.__version__, "device": hardware, "threads": torch.get_num_threads()}
    for name in arguments.cases:
        case = CASES[name]
        if name == "cifar_cnn" and device.type == "cpu":
            case = replace(case, **CIFAR_ON_CPU)
        result: dict[str, Any] = {"agreement": agreement(case, device), **measure(case, device, arguments.rounds)}
        print(
            f"{name}: straightforward {result['straightforward_ms']:.1f} ms, closed form {result['closed_form_ms']:.1f} ms, "
            f"{result['ratio']:.2f} times faster"
        )
        for side, errors in result["agreement"].items():
            print(f"  gradient of {side} against straightforward 64:", errors_in_words(errors))
        limit = convolution_limit(case, device, arguments.rounds)
        if limit:
            result["convolutions_ms"] = limit
            print(f"  convolutions alone {limit:.1f} ms, {100 * limit / result['closed_form_ms']:.0f} % of the closed form")
        results[name] = result
    if arguments.options:
        results["options"] = option_costs(case, device, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
