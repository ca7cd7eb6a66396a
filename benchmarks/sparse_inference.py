"""Linear layers through torch's sparse kernels against dense ones: where is it faster?

    OMP_NUM_THREADS=1 python benchmarks/sparse_inference.py [--repeats 30] [--json result.json]

A layer 784 -> 300 and one 2048 -> 1000, for several sparsities and mini-batches; both ways alternate in one process. Printed is
dense time / sparse time, above 1 where the sparse kernel is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from altprop.nn.sparse_inference import SparseLinear

SHAPES = ((784, 300), (2048, 1000))
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
BATCHES = (1, 10, 100, 1000)


@torch.inference_mode()
def speedup(shape: tuple[int, int], sparsity: float, batch: int, repeats: int) -> float:
    dense = nn.Linear(*shape)
    dense.weight.mul_(torch.rand_like(dense.weight) >= sparsity)
    sparse = SparseLinear(dense.weight, dense.bias)
    inputs = torch.randn(batch, shape[0])
    times: dict[nn.Module, list[float]] = {dense: [], sparse: []}
    for _ in range(repeats + 3):
        for layer, taken in times.items():
            start = time.process_time()
            layer(inputs)
            taken.append(time.process_time() - start)
    return statistics.median(times[dense][3:]) / statistics.median(times[sparse][3:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    for shape in SHAPES:
        print(f"{shape[0]} -> {shape[1]}: dense time / sparse time")
        print("sparsity " + "".join(f"{f'batch {batch}':>12}" for batch in BATCHES))
        for sparsity in SPARSITIES:
            row = [speedup(shape, sparsity, batch, arguments.repeats) for batch in BATCHES]
            print(f"{sparsity:<9}" + "".join(f"{value:12.2f}" for value in row))
            results[f"{shape[0]}x{shape[1]}, {sparsity}"] = dict(zip(map(str, BATCHES), row))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
