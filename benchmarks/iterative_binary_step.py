"""What binary weights cost over float ones: one training step of the 300-100-10 network and of Vgg-5 (Lan 2021).

    OMP_NUM_THREADS=1 python benchmarks/iterative_binary_step.py [--rounds 400] [--nets 300 vgg5] [--json result.json]

Three sides train the same network with the same fused Adam on the same random mini-batch of 100, one step each in turn: float
weights (`Dense`), altprop's `Binary`, and the straightforward way, in which every layer copies its weights twice in every
forward pass: once to take the signs in place and once to put the float weights back. The ratio is formed round by round; its
median is the result.
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
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.binary import Binary

BATCH = 100
TARGETS = {"300": 1.15, "vgg5": 1.05}
FORM = {"units": nn.ReLU, "num_classes": 10, "batch_norm_logits": True, "bias_before_norm": True}
NETS: dict[str, Callable[[], nn.Module]] = {
    "300": partial(MLP, (300, 100), input_shape=(1, 28, 28), **FORM),
    "vgg5": partial(ConvNet, (64, 64, "pool"), hidden=(256, 256), input_shape=(3, 32, 32), **FORM),
}


class CopyingRule(WeightsRule):
    """Signs by copies: weights are saved and overwritten before every forward pass, and restored after the backward pass."""

    def attach(self, model: nn.Module, context: object) -> None:
        self.layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        self.saved: list[Tensor] = []

    def step_start(self, step: int) -> None:
        self.saved = []
        for layer in self.layers:
            self.saved.append(layer.weight.data.clone())
            layer.weight.data = layer.weight.data.clone().sign_()

    def adjust_gradients(self, parameters: object) -> None:
        for layer, saved in zip(self.layers, self.saved):
            layer.weight.data = saved


def side(net: str, rule: WeightsRule) -> Callable[[Tensor, Tensor], object]:
    """A function that makes one training step."""
    torch.manual_seed(0)
    algorithm = Backprop(weights=rule)
    model = NETS[net]()
    context = Context(10**9, 1, torch.device("cpu"), 0, model.input_shape, 10, BATCH)  # type: ignore[arg-type]
    algorithm.setup(model, partial(torch.optim.Adam, lr=0.1, fused=True), Schedule(), context)
    algorithm.epoch_start(0)
    return algorithm.train_step


def measure(net: str, rounds: int) -> dict[str, object]:
    """Milliseconds and ratios to the float step, medians over ``rounds``."""
    sides = {"float": side(net, Dense()), "binary": side(net, Binary()), "copying": side(net, CopyingRule())}
    inputs = torch.randn(BATCH, *((1, 28, 28) if net == "300" else (3, 32, 32)))
    targets = torch.randint(10, (BATCH,))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 3):
        for name, step in sides.items():
            started = time.perf_counter()
            step(inputs, targets)
            if number >= 3:
                seconds[name].append(time.perf_counter() - started)
    return {
        "net": net,
        "rounds": rounds,
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in seconds.items()},
        "ratio": {
            name: statistics.median(ours / theirs for ours, theirs in zip(values, seconds["float"]))
            for name, values in seconds.items()
        },
        "target": TARGETS[net],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="steps of each side; a tenth of it for vgg5")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = [measure(net, options.rounds if net == "300" else max(3, options.rounds // 10)) for net in options.nets]
    for result in results:
        milliseconds, ratio = result["milliseconds"], result["ratio"]
        assert isinstance(milliseconds, dict)
        assert isinstance(ratio, dict)
        shown = ", ".join(f"{name} {milliseconds[name]:.2f} ms ({ratio[name]:.3f} x)" for name in milliseconds)
        verdict = "met" if ratio["binary"] <= result["target"] else "missed"  # type: ignore[operator]
        print(f"{result['net']}: {shown}; target for binary {result['target']} x: {verdict}")
    if options.json:
        options.json.write_text(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
