"""Linear layers with torch's sparse kernels against dense ones: when are they faster?

    OMP_NUM_THREADS=1 python benchmarks/sparse_inference.py [--rounds 30] [--device cuda] [--json result.json]

Layers 784 -> 300 and 2048 -> 1000, for several sparsities and mini-batches; both kernels alternate in one process. The ratio is
dense time / sparse time, above 1 if the sparse kernel is faster. The FLOPs are the share of weights that remain.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired
from torch import nn

from altprop.nn.export.sparse_inference import SparseLinear

SUITE = "--rounds 15 --shapes 784x300 --sparsities 0.9 0.98 --batches 1 100"
QUICK = "--rounds 2 --shapes 784x300 --sparsities 0.9 --batches 1"

BREAK_EVEN = 0.9
"""The sparsity from which the sparse kernel should be faster."""


@torch.inference_mode()
def speed(shape: str, sparsity: float, batch: int, rounds: int, timer: Timer) -> Row:
    width, outputs = map(int, shape.split("x"))
    dense = nn.Linear(width, outputs, device=timer.device)
    dense.weight.mul_(torch.rand_like(dense.weight) >= sparsity)
    sparse = SparseLinear(dense.weight, dense.bias)
    inputs = torch.randn(batch, dense.in_features, device=timer.device)
    seconds = alternate({"dense": partial(dense, inputs), "sparse": partial(sparse, inputs)}, rounds, timer, warm_up=3)
    limit = at_least(1.0, "break-even from 0.9 on") if sparsity >= BREAK_EVEN else at_least(0.1, "no target at this density")
    what = f"sparse kernel, {shape}, sparsity {sparsity}, batch {batch}"
    return paired(what, "dense", seconds["dense"], seconds["sparse"], limit, unit="µs", scale=1e6, flops=1 - sparsity)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=30)
    parser.add_argument("--shapes", nargs="+", default=["784x300", "2048x1000"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9, 0.95, 0.98, 0.99])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 10, 100, 1000])
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    torch.manual_seed(0)
    for shape in args.shapes:
        for sparsity in args.sparsities:
            for batch in args.batches:
                yield speed(shape, sparsity, batch, args.rounds, Timer(args.clock, torch.device(args.device)))


if __name__ == "__main__":
    main(parser(), rows)
