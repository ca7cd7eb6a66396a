"""A training mini-batch of equilibrium propagation compared with the straightforward published implementation.

    OMP_NUM_THREADS=1 python benchmarks/equilibrium_propagation_step.py [--cases mnist_mlp mnist_cnn cifar_cnn] [--rounds 5]
        [--device cuda] [--options] [--seeds 20] [--json result.json]

The straightforward implementation in this file differentiates the primitive function by autograd at every time step, runs the
phases one after another, recomputes the drive of the input every time, and contrasts two derivatives. Both sides take the same
mini-batch through the same phases, gradient and optimizer step. Rounds alternate; the ratio is formed in every round, and its
median is the result. Before that, the gradients of both sides are compared in float64 and float32. ``--options`` also measures
the speed and accuracy of every option. ``--seeds`` compares the gradients of both sides in float32 with float64 on that many
mini-batches of noise, and measures nothing else.

``cifar_cnn`` is the paper's ConvNet with batch 128, T1 250 and T2 2 x 30 on CUDA. On a CPU that takes minutes per mini-batch, so
the batch is 16 and the phases have 50 and 2 x 6 steps; the time per step does not depend on their lengths. Rows with ``early
exit`` have phases of the published length and few images: altprop ends a phase once its states have settled to round-off, which
leaves the gradient as exact as before (also compared in both precisions).
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as functional
from command_line import main, standard_parser
from measuring import Limit, Row, Timer, alternate, at_least, at_most, paired, repeated
from subjects import CIFAR, MNIST, set_up
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.graphs import WARM_UP
from altprop.algorithms.recorder import CudaRecorder
from altprop.models.energy import EnergyConvNet, EnergyMLP, EnergyModel
from altprop.nn.energy.edges import Apply
from altprop.nn.energy.fixed_edges import fixed_convolution, fixed_transpose


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
    steps: int = 1
    """Consecutive training steps per round: a single step of a few milliseconds would start with cold caches."""


Result = TypeVar("Result")

SUITE = "--rounds 3 --short"
QUICK = "--rounds 1 --cases mnist_mlp"

CIFAR_NET = partial(
    EnergyConvNet, channels=(128, 256, 512, 512), kernels=(3,) * 4, strides=(1,) * 4, paddings=(1, 1, 1, 0), pools=("max",) * 4,
    activation="half_slope_hard_sigmoid", input_shape=CIFAR, num_classes=10,
)  # fmt: skip
CASES = {
    "mnist_mlp": Case(
        partial(EnergyMLP, hidden=(512,), input_shape=MNIST, num_classes=10), 50, MNIST, 30, 10, 0.1, False,
        partial(torch.optim.Adam, lr=5e-4, fused=True), steps=20,
    ),
    "mnist_cnn": Case(
        partial(EnergyConvNet, activation="hard_sigmoid", input_shape=MNIST, num_classes=10), 100, MNIST, 200, 10, 0.4, False,
        partial(torch.optim.Adam, lr=1e-5, fused=True),
    ),
    "cifar_cnn": Case(CIFAR_NET, 128, CIFAR, 250, 30, 0.5, True, partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)),
}  # fmt: skip
TARGETS = {"mnist_mlp": 10.0, "mnist_cnn": 2.5, "cifar_cnn": 1.4}
ON_CPU: dict[str, dict[str, Any]] = {"cifar_cnn": {"batch": 16, "free_steps": 50, "nudge_steps": 6}}
ROUND_OFF = 8.0
"""Phases of ``early exit`` rows end once no unit moves by more than this many units of round-off of a state of size 1."""
WHOLE: dict[str, dict[str, Any]] = {"mnist_cnn": {"batch": 20}, "cifar_cnn": {"batch": 2}}
"""Mini-batches of ``early exit`` rows on a CPU. Phases have their published length: shorter ones would not end early."""
SHORT: dict[str, dict[str, Any]] = {
    "mnist_cnn": {"batch": 50, "free_steps": 100},
    "cifar_cnn": {"batch": 4, "free_steps": 50, "nudge_steps": 6},
}
SEEDED: dict[str, Any] = {"batch": 4, "free_steps": 20, "nudge_steps": 5}
"""Mini-batches and phases of the comparison over seeds."""
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tf32": {"precision": "tf32"},
    "bf16 convolutions": {"precision": "bf16"},
    "early exit at 1e-6": {"tolerance": 1e-6},
    "red-black, 60 + 2 x 20 sweeps": {"update_order": "red_black", "free_steps": 60, "nudge_steps": 20},
    "graph": {"cuda_graph": True},
    "graph, bf16 convolutions": {"cuda_graph": True, "precision": "bf16"},
    "graph, tf32, red-black": {
        "cuda_graph": True, "precision": "tf32", "update_order": "red_black", "free_steps": 60, "nudge_steps": 20
    },
    "all of tf32, early exit, red-black": {
        "precision": "tf32", "tolerance": 1e-6, "update_order": "red_black", "free_steps": 60, "nudge_steps": 20
    },
    "compiled": {"compile": True},
    "all of them, compiled": {
        "precision": "tf32", "tolerance": 1e-6, "update_order": "red_black", "free_steps": 60, "nudge_steps": 20, "compile": True,
    },
}  # fmt: skip


class Straightforward:
    """The published implementation: it defines ``Phi``, and autograd does the rest."""

    def __init__(self, model: EnergyModel, case: Case) -> None:
        self.model, self.case = model, case
        self.optimizer = case.optimizer(model.parameters())

    def phi(self, inputs: Tensor, targets: Tensor, states: list[Tensor], beta: float) -> Tensor:
        """Return the primitive function of every sample, ``[batch]``."""
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
        """Return the states after ``steps`` time steps, each with its own graph."""
        for _ in range(steps):
            leaves = [state.detach().requires_grad_() for state in states]
            drives = torch.autograd.grad(self.phi(inputs, targets, leaves, beta).sum(), leaves)
            states = [self.model.activation(drive) for drive in drives]
        return states

    def train_step(self, inputs: Tensor, targets: Tensor) -> None:
        """Run the free phase and the nudged phases one after another, contrast two derivatives, and update."""
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
    """Return altprop's algorithm for the same case."""
    runtime = {name: options.pop(name) for name in ("precision", "compile", "channels_last") if name in options}
    if options.pop("cuda_graph", False):
        runtime["recorder"] = CudaRecorder(device)
    settings = {"free_steps": case.free_steps, "nudge_steps": case.nudge_steps, **options}
    nudging = "symmetric" if case.symmetric else "one_sided"
    algorithm = EquilibriumPropagation(beta=case.beta, nudging=nudging, **settings)  # type: ignore[arg-type]
    return set_up(algorithm, lambda: model, case.shape, case.batch, case.optimizer, device, **runtime)


def mini_batch(case: Case, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(case.batch, *case.shape, generator=generator, dtype=torch.float64)
    return inputs.to(device, dtype), torch.randint(10, (case.batch,), generator=generator).to(device)


def make_model(case: Case, device: torch.device, dtype: torch.dtype = torch.float32) -> EnergyModel:
    torch.manual_seed(0)
    return case.model().to(device, dtype)


def gradients(side: Straightforward | EquilibriumPropagation, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a step by name; of a replayed one if ``side`` captures its steps."""
    initial = copy.deepcopy(side.model.state_dict())
    for _ in range(WARM_UP + 1 if isinstance(side, EquilibriumPropagation) and side.graphed is not None else 0):
        side.train_step(inputs, targets)
        side.model.load_state_dict(initial)
    side.train_step(inputs, targets)
    return {name: parameter.grad.detach().double() for name, parameter in side.model.named_parameters()}  # type: ignore[union-attr]


def relative_errors(estimates: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative distance of every weight's gradient from ``truth``."""
    return {
        name: float((estimates[name].to(value.device) - value).norm() / value.norm())
        for name, value in truth.items()
        if "weight" in name
    }


def shortened(case: Case) -> Case:
    return replace(case, batch=4, free_steps=min(case.free_steps, 40), nudge_steps=min(case.nudge_steps, 10))


def round_off(dtype: torch.dtype) -> float:
    return ROUND_OFF * torch.finfo(dtype).eps


def agreement(case: Case, device: torch.device, *, early_exit: bool = False) -> dict[str, dict[str, float]]:
    """Return relative errors of gradients: between the sides in float64, and of each side in float32 from float64."""
    results: dict[str, dict[str, Tensor]] = {}
    for dtype, bits in ((torch.float64, 64), (torch.float32, 32)):
        model, batch = make_model(case, device, dtype), mini_batch(case, device, dtype)
        options = {"tolerance": round_off(dtype)} if early_exit else {}
        results[f"straightforward {bits}"] = gradients(Straightforward(copy.deepcopy(model), case), *batch)
        results[f"closed form {bits}"] = gradients(closed_form(model, case, device, **options), *batch)
    truth = results["straightforward 64"]
    return {name: relative_errors(result, truth) for name, result in results.items() if name != "straightforward 64"}


def rounding(name: str, case: Case, device: torch.device, seeds: int) -> Iterator[Row]:
    """Compare gradients in float32 with float64 on ``seeds`` mini-batches; one row per layer. Ratios are of median errors."""
    sides: dict[str, dict[str, list[float]]] = {}
    cosines: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        exact = closed_form(make_model(case, device, torch.float64), case, device)
        truth = gradients(exact, *mini_batch(case, device, torch.float64, seed))
        both: dict[str, Straightforward | EquilibriumPropagation] = {
            "straightforward": Straightforward(make_model(case, device), case),
            "closed form": closed_form(make_model(case, device), case, device),
            "closed form, channels_last": closed_form(make_model(case, device), case, device, channels_last=True),
        }
        for side, algorithm in both.items():
            estimates = gradients(algorithm, *mini_batch(case, device, seed=seed))
            for layer, error in relative_errors(estimates, truth).items():
                sides.setdefault(layer, {}).setdefault(side, []).append(error)
                cosine = torch.cosine_similarity(estimates[layer].flatten(), truth[layer].flatten(), dim=0)
                cosines.setdefault(layer, {}).setdefault(side, []).append(float(cosine))
    for layer, errors in sides.items():
        medians = {side: statistics.median(values) for side, values in errors.items()}
        values = {f"median, {side}": value for side, value in medians.items()}
        values |= {f"largest, {side}": max(each) for side, each in errors.items()}
        values |= {f"smallest cosine, {side}": min(each) for side, each in cosines[layer].items()}
        form = f"{name}, batch {case.batch}, T1 {case.free_steps}, T2 {case.nudge_steps}, {seeds} seeds"
        yield Row(
            f"float32 gradient of {layer.removesuffix('.weight')}, {form}",
            "straightforward implementation",
            medians["straightforward"] / medians["closed form"],
            at_least(0.5, "not less exact, a factor of 2 for noise"),
            measure="exactness",
            values=values,
        )


def tf32(work: Callable[[], Result], allowed: bool) -> Result:
    """Return ``work()``, with TF32 in matrix products and convolutions if it is ``allowed``."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    result = work()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return result


def measure(
    name: str,
    case: Case,
    timer: Timer,
    rounds: int,
    limit: Limit,
    values: Mapping[str, float],
    plain_seconds: Sequence[float] | None = None,
    **options: Any,
) -> Row:
    """Time both sides on the same mini-batches; the ratio is the speed of altprop relative to the straightforward side.

    ``plain_seconds`` are those of the straightforward side in every round, if they are known; otherwise both sides take turns.
    """
    batch = mini_batch(case, timer.device)
    ours = closed_form(make_model(case, timer.device), case, timer.device, **options)
    step = partial(tf32, partial(repeated, partial(ours.train_step, *batch), case.steps), options.get("precision") == "tf32")
    sides: dict[str, Callable[[], object]] = {"closed form": step}
    if plain_seconds is None:
        sides["straightforward"] = straightforward_steps(case, timer)
    if ours.graphed is not None:
        repeated(step, WARM_UP + 1)
    seconds = alternate(sides, rounds, timer)
    if plain_seconds is not None:
        seconds["straightforward"] = list(plain_seconds)
    form = f"batch {case.batch}, T1 {case.free_steps}, T2 {'2 x ' if case.symmetric else ''}{case.nudge_steps}"
    exit_early = ", early exit" if "tolerance" in options else ""
    what = f"equilibrium propagation step, {name}, {form}{exit_early}"
    return paired(
        what,
        "autograd of Phi at every step",
        seconds["straightforward"],
        seconds["closed form"],
        limit,
        scale=1e3 / case.steps,
        values=values,
    )


def straightforward_steps(case: Case, timer: Timer) -> Callable[[], object]:
    """Return a round of the straightforward side."""
    plain = Straightforward(make_model(case, timer.device), case)
    return partial(tf32, partial(repeated, partial(plain.train_step, *mini_batch(case, timer.device)), case.steps), False)


def early_exit(name: str, case: Case, timer: Timer, rounds: int) -> Row:
    """Measure phases of the published length that end once states have settled to round-off."""
    values: dict[str, float] = {}
    for side, errors in agreement(replace(case, batch=2), timer.device, early_exit=True).items():
        values |= named_errors(f", {side}", errors)
    tolerance = round_off(torch.float32)
    return measure(name, case, timer, rounds, at_least(TARGETS[name], "target"), values, tolerance=tolerance)


def convolution_limit(case: Case, timer: Timer, rounds: int) -> float:
    """Return the milliseconds of the convolutions alone, forward and transposed for every edge and step, in the fastest form."""
    model = make_model(case, timer.device)
    phases = 2 if case.symmetric else 1
    total = 0.0
    for edge, layer in list(zip(model.edges, model.layers, strict=True))[1:]:
        if not edge.is_convolution:
            continue
        assert isinstance(layer.weight, Tensor)
        choices = []
        for layout in (torch.channels_last, torch.contiguous_format):
            weight = layer.weight.detach().contiguous(memory_format=layout)
            below = torch.rand(case.batch, *edge.below, device=timer.device).contiguous(memory_format=layout)
            above = torch.rand(case.batch, *edge.unpooled, device=timer.device).contiguous(memory_format=layout)

            def pair(below: Tensor = below, above: Tensor = above, weight: Tensor = weight, padding: int = edge.padding) -> None:
                functional.conv2d(below, weight, padding=padding)
                functional.conv_transpose2d(above, weight, padding=padding)

            pair()
            if layout is torch.channels_last:  # also with the weight packed in advance
                up, down = fixed_convolution(edge, weight, None, case.batch), fixed_transpose(edge, weight, case.batch)

                def packed(below: Tensor = below, above: Tensor = above, up: Apply = up, down: Apply = down) -> None:
                    up(below), down(above)

                packed()
                choices.append(statistics.median(timer(packed) for _ in range(rounds)))
            choices.append(statistics.median(timer(pair) for _ in range(rounds)))
        total += min(choices)
    return 1e3 * total * (case.free_steps + phases * case.nudge_steps)


def option_costs(case_name: str, case: Case, timer: Timer, rounds: int) -> Iterator[Row]:
    """Measure the speed of every option and the error of its gradient relative to full phases in float64.

    The straightforward side, by far the slowest, is timed only once, before all options.
    """
    few, device = replace(case, batch=4), timer.device
    truth = gradients(closed_form(make_model(few, device, torch.float64), few, device), *mini_batch(few, device, torch.float64))
    plain = alternate({"straightforward": straightforward_steps(case, timer)}, rounds, timer)["straightforward"]
    for name, options in OPTIONS.items():
        needs_cuda = options.get("precision") == "tf32" or options.get("compile") or options.get("cuda_graph")
        if device.type != "cuda" and needs_cuda:
            continue
        side = closed_form(make_model(few, device), few, device, **options)
        estimates = tf32(partial(gradients, side, *mini_batch(few, device)), options.get("precision") == "tf32")
        errors = named_errors("", relative_errors(estimates, truth))
        row = measure(case_name, case, timer, rounds, at_least(1.0, "not slower"), errors, plain, **options)
        yield replace(row, what=f"{row.what}; {name}")


def named_errors(side: str, errors: Mapping[str, float]) -> dict[str, float]:
    """Return errors of gradients by layer with names for the values of a row."""
    layers = {name.removeprefix("layers.").removesuffix(".weight"): value for name, value in errors.items()}
    return {f"relative error of the gradient of layer {layer}{side}": value for layer, value in layers.items()}


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, help="only compare gradients in float32 and float64 on this many mini-batches")
    parser.add_argument("--options", action="store_true", help="also measure every option of the last case")
    parser.add_argument(
        "--short", action="store_true", help="use smaller mini-batches and shorter phases for the convolutional networks"
    )
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    timer = Timer(args.clock, torch.device(args.device))
    for name in args.cases:
        case = CASES[name]
        if args.seeds:
            yield from rounding(name, replace(case, **SEEDED), timer.device, args.seeds)
            continue
        if timer.device.type == "cpu":
            case = replace(case, **ON_CPU.get(name, {}))
        if args.short:
            case = replace(case, **SHORT.get(name, {}))
        values: dict[str, float] = {}
        for side, errors in agreement(shortened(case), timer.device).items():
            values |= named_errors(f", {side}", errors)
        row = measure(name, case, timer, args.rounds, at_least(TARGETS[name], "target"), values)
        yield row
        limit = convolution_limit(case, timer, args.rounds)
        if limit:
            most = at_most(1.5, "memory traffic of states and poolings")
            yield Row(row.what, "its convolutions alone", row.values["ms"] / limit, most, values={"ms of the baseline": limit})
        if timer.device.type == "cpu":
            yield early_exit(name, replace(CASES[name], **WHOLE.get(name, {})), timer, args.rounds)
    if args.options:
        yield from option_costs(name, case, timer, args.rounds)


if __name__ == "__main__":
    main(parser(), rows)
