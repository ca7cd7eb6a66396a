"""Cost of decoupled greedy learning compared with end-to-end backprop: time of a step, activation memory, evaluation.

    OMP_NUM_THREADS=1 python benchmarks/decoupled_greedy.py [--batch 32] [--rounds 9] [--head mlp_sr] [--json result.json]

Both sides train the 6-layer CIFAR network (width 128) with SGD on the same noise, one layer per block; the end-to-end side is
plain PyTorch. Rounds alternate, a ratio is formed in every round, and the median is the result. Activation memory is counted in
two ways: the peak of the bytes that graphs hold for the backward pass; and the peak of everything that forward and backward
passes allocate, including temporaries, except parameters and their gradients. The last row compares the evaluation of all heads
with that of the last one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_most, paired
from memory import Allocations, LiveStorages, persistent, saved_for_backward, without_updates
from straightforward_greedy import EndToEnd
from subjects import CIFAR, CLASSES, noise, set_up
from torch import nn

from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.models.greedy_cnn import GreedyCNN
from altprop.nn.heads import local as local_heads

SUITE = "--batch 64 --rounds 4 --clock process"
QUICK = "--rounds 2 --batch 2 --width 4"

BASELINE = "backprop in plain PyTorch"
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=9, clock="wall")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--head", choices=["mlp_sr", "mlp", "cnn"], default="mlp_sr")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    timer = Timer(args.clock, device)
    make_model = partial(GreedyCNN, depth=6, width=args.width, units=nn.ReLU, input_shape=CIFAR, num_classes=CLASSES)
    inputs, targets = noise(args.batch, CIFAR, device)
    algorithm = DecoupledGreedy(head=getattr(local_heads, f"{args.head}_head"))
    set_up(algorithm, make_model, CIFAR, args.batch, SGD, device)
    torch.manual_seed(0)
    end_to_end = EndToEnd(make_model().to(device), SGD)

    ours: Callable[[], object] = partial(algorithm.train_step, inputs, targets)
    plain: Callable[[], object] = partial(end_to_end, inputs, targets)
    seconds = alternate({"ours": ours, "plain": plain}, args.rounds, timer)
    limit = at_most(0.95, "target: no graph of the whole network, its first layers' gradients never computed")
    yield paired(f"decoupled greedy step, batch {args.batch}", BASELINE, seconds["ours"], seconds["plain"], limit)

    sides = (
        (ours, [algorithm.model, algorithm.local_heads], [step.optimizer for step in algorithm.optimizers]),
        (plain, [end_to_end.model], [end_to_end.optimizer]),
    )
    saved, allocated = [], []
    for step, modules, optimizers in sides:
        ignored = persistent(modules, optimizers) | {value.untyped_storage()._cdata for value in (inputs, targets)}
        live = LiveStorages(ignored)
        with saved_for_backward(live):
            step()
        saved.append(live.peak)
        live = LiveStorages(ignored)
        with without_updates(optimizers, live), Allocations(live):
            step()
        allocated.append(live.peak)
    limits = {
        "bytes that graphs hold": at_most(0.45, "target"),
        "bytes that both passes allocate": at_most(0.9, "no target; one block's graph at a time"),
    }
    for (what, limit), (mine, other) in zip(limits.items(), (saved, allocated), strict=True):
        values = {"MiB": mine / 2**20, "MiB of the baseline": other / 2**20}
        yield Row(what, BASELINE, mine / other, limit, measure="memory", values=values)

    with algorithm.inference():
        evaluation: dict[str, Callable[[], object]] = {
            "all": partial(algorithm.predictions, inputs),
            "last": partial(algorithm.predict, inputs),
        }
        seconds = alternate(evaluation, args.rounds, timer)
    limit = at_most(1.3, "the heads' own FLOPs, with 1 x 1 convolutions on small maps")
    yield paired("evaluation of all heads", "of the last one", seconds["all"], seconds["last"], limit)


if __name__ == "__main__":
    main(parser(), rows)
